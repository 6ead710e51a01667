// When and on what a placement is planned: on steps that will not be scored or, as a marked bound, on those that will.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "experiments/assembly.h"
#include "experiments/experiment.pb.h"
#include "models/simulation/simulation.h"
#include "policies/placement/placement.h"
#include "traces/workload/step_source.h"

namespace epsim {

// The steps of a replay, cut in two.
struct StepsCut {
  int64_t left_out = 0;  // Before the first scored one.
  int64_t scored = 0;
};
// Fails if no step would be left to score.
absl::StatusOr<StepsCut> CutSteps(const PlanningConfig& config, const StepSource& source);

// Passes over `steps` steps.
absl::Status SkipSteps(StepSource& source, int64_t steps, const StopToken& stop);

// The experiment's placement, planned on `seen`; where that is empty, contiguous: as a server starts.
// `profile`: what the experts cost meanwhile; `co_activation`: which were chosen together.  Null where that was not
// measured.
absl::StatusOr<Placement> PlanPlacement(const Experiment& experiment, Assembly& parts, const RecordedLoad& seen,
                                        const ExpertProfile* profile = nullptr,
                                        const CoActivation* co_activation = nullptr);

}  // namespace epsim
