// When and on what a placement is planned: on steps that will not be scored or, as a marked bound, on those that will.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/statusor.h"
#include "experiments/assembly.h"
#include "experiments/experiment.pb.h"
#include "models/simulation/simulation.h"
#include "policies/placement/placement.h"
#include "traces/workload/step_source.h"

namespace epsim {

struct Plan {
  Placement placement;
  int64_t seen_steps = 0;      // Steps whose load the policy saw.
  int64_t left_out_steps = 0;  // Steps before the first scored one.
  int64_t scored_steps = 0;
  std::unique_ptr<StepSource> scored;  // Its next step is the first to score.
};

// Plans the experiment's placement.  `new_source` makes a source that starts from the first step.  Fails if no step
// would be left to score.
absl::StatusOr<Plan> MakePlan(const Experiment& experiment, Assembly& parts,
                              const std::function<absl::StatusOr<std::unique_ptr<StepSource>>()>& new_source,
                              const SimulationOptions& options);

}  // namespace epsim
