// From the options of a serving engine to an experiment's own fields.
#pragma once

#include "absl/status/status.h"
#include "experiments/experiment.pb.h"

namespace epsim {

// Fills in placement, redundant slots, planning, replica choice, rebalance and, where the options name a backend,
// communication of `experiment`, whose `engine` names the options.  They start as the engine starts: on contiguous
// experts (planning.cold) where it rebalances while serving.  `experts`: of the model.
// Fails where one of those fields is also set (both cannot hold), on a value that the engine does not take, and on slots
// that the ranks do not divide: the error names the option as the engine does and says what would fit.
absl::Status ApplyEngineOptions(int experts, Experiment* experiment);

}  // namespace epsim
