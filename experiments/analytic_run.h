// What `epsim run` answers where an experiment names no trace: an estimate from the shapes alone.
#pragma once

#include "absl/status/statusor.h"
#include "experiments/run.h"
#include "experiments/setup.h"

namespace epsim {

// Runs one decode step in which each rank has as many requests as its workload keeps running (continuous) or starts
// together (lock_step), one token each, with contexts of analytic.context_tokens.  Every token chooses its experts
// uniformly and independently; each layer has the expectation of that chance, the busiest rank with it (UniformCounts
// in models/load/uniform_load.h), and the traffic that these counts give (models/routing/expected_routing.h).  Costs,
// exchanges, schedule and network are those of any run, so that the step differs from the mean of many drawn steps only
// as a function of expectations does from the expectation of the function (tested: within 2 %).  A schedule that
// cuts the batch cuts these counts.
//
// Experts lie in order, the first ranks holding one more where the ranks do not divide them, and none is redundant:
// under uniform routing there is nothing to balance.  The report is that of a run, and under "analytic" it says what
// was assumed and what the busiest rank has to do.  Fails for a workload that replays recorded steps.
absl::StatusOr<RunReport> AnalyticRun(const ResolvedExperiment& resolved, const RunOptions& options);

}  // namespace epsim
