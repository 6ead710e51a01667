// The replay: step after step is asked of the source, routed, costed, run on the simulated cluster and shown to the
// observers.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "models/routing/co_activation_recorder.h"
#include "models/routing/token_routing.h"
#include "models/simulation/forward_pass.h"
#include "policies/placement/placement.h"
#include "policies/placement/placement_policy.h"
#include "traces/workload/step_source.h"

namespace epsim {

struct SimulationOptions {
  int threads = 1;  // Layers of a step are counted in parallel; the report does not depend on it.
  StopToken stop;
  Progress* progress = nullptr;  // May be null.
};

// Runs every remaining step of `source`.  The batches must have the model's MoE layers, and `routing` the detail that
// the communication strategy asks for.  Fails on a step that the strategy does not admit or the schedule cannot cut,
// that takes kLongestStep or longer, and on a run of 30 days.
absl::Status Simulate(const ForwardContext& context, const PlacementShape& shape, const TokenRouting& routing,
                      StepSource& source, const SimulationOptions& options);

// The loads of `steps` steps of `source`, in at most `max_rows` rows: where there are more steps, neighbours are summed
// (LoadWindow::steps_per_row), so that the total is exact and memory is bounded.
struct RecordedLoad {
  std::vector<double> tokens;  // [rows, layers, experts]
  LoadWindow window;           // A view of `tokens`.
  int64_t steps = 0;
};
// Their tokens go to `co_activation` too, unless it is null.
absl::StatusOr<RecordedLoad> RecordLoad(StepSource& source, int64_t steps, int layers, int experts, int max_rows,
                                        const SimulationOptions& options,
                                        CoActivationRecorder* co_activation = nullptr);

}  // namespace epsim
