// The replay: step after step is asked of the source, routed, costed, run on one simulated cluster or several, and
// shown to their observers.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "models/routing/placed_routing.h"
#include "models/simulation/forward_pass.h"
#include "models/simulation/program_store.h"
#include "models/simulation/rebalancer.h"
#include "models/simulation/step_routing.h"
#include "policies/placement/placement_policy.h"
#include "traces/workload/step_source.h"

namespace epsim {

class Workers;

struct SimulationOptions {
  int threads = 1;  // Layers of a step are counted in parallel; the report does not depend on it.
  StopToken stop;
  Progress* progress = nullptr;  // May be null.
};

// One alternative of a replay: a cluster, a placement with its balancer, and the clock that they live by.
class Simulation : private Observer {
 public:
  // Everything pointed at, and in `context`, outlives the simulation.  `routing` has the detail that the communication
  // strategy asks for.  Without a mode in `rebalance`, the placement stays as it is.  `policy` null: tokens go where
  // the trace says.
  Simulation(const ForwardContext& context, PlacedRouting* routing, RebalanceSetup rebalance = {},
             StepRouting* policy = nullptr);
  ~Simulation() override;

  // Runs the next step, as composed for all ranks; the batch has the model's MoE layers.  Fails where the strategy does
  // not admit it or the schedule cannot cut it, where it takes kLongestStep or longer, and when a run passes 30 days.
  absl::Status RunStep(const StepBatch& composed, Workers& workers, const StopToken& stop);

  // From now on each step is the bound of what the same step was in `others` (balanced_work.h), which run it first.
  // REQUIRES: they and this one have the same cluster, model and schedule; the placement is never changed.
  void SetBoundOf(std::vector<const Simulation*> others) { bound_of_ = std::move(others); }

  // Of the balancer, so far.
  const std::deque<RebalanceRecord>& rebalances() const;

 private:
  // Shows the step to a cost model that executes kernels.
  absl::Status ExecuteStep(Workers& workers, const StopToken& stop);

  void OnStage(const StageRecord&) override {}
  void OnHook(const HookRecord& hook) override;
  void OnStepEnd(const StepRecord&) override {}

  const ForwardContext context_;
  PlacedRouting* const routing_;
  StepRouting* const policy_;
  const PlacementShape shape_;
  const bool quantizes_;
  ProgramStore programs_;
  ForwardPass pass_;
  std::vector<const Simulation*> bound_of_;
  ExpertProfiler* profiler_ = nullptr;      // Null: nothing is profiled.
  std::unique_ptr<Rebalancer> rebalancer_;  // Null: the placement stays.
  StepBatch survivor_batch_;                // While ranks are away.
  StepWork work_;
  std::vector<RoutedLayer> whole_;     // Where a layer has several pieces.
  std::vector<Duration> expert_time_;  // [MoE layers, ranks]
};

// Runs every remaining step of `source` on each of `simulations`: decoded and composed once.
absl::Status Replay(StepSource& source, absl::Span<Simulation* const> simulations, const SimulationOptions& options);

// The loads of `steps` steps of `source`, in at most `max_rows` rows: where there are more steps, neighbours are summed
// (LoadWindow::steps_per_row), so that the total is exact and memory is bounded.
struct RecordedLoad {
  std::vector<double> tokens;  // [rows, layers, experts]
  LoadWindow window;           // A view of `tokens`.
  int64_t steps = 0;
};
// A `policy` routes them first.  `watch` sees each step, and its tokens of each logical expert [layers, experts].
using StepWatcher = std::function<void(const StepBatch& batch, absl::Span<const int32_t> tokens)>;
absl::StatusOr<RecordedLoad> RecordLoad(StepSource& source, int64_t steps, int layers, int experts, int max_rows,
                                        const SimulationOptions& options, const StepWatcher& watch = nullptr,
                                        StepRouting* policy = nullptr);

}  // namespace epsim
