// Runs experiments: pure functions of the configuration and the bytes of the trace.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/stop_token.h"
#include "experiments/run_report.h"
#include "experiments/setup.h"
#include "models/calibration/work_times.h"

namespace epsim {

class ReportFolder;

struct RunOptions {
  std::string out = {};  // Folder for the report's files, made if need be; empty: none are written.
  int threads = 0;       // 0: one per core.  The report does not depend on it.
  StopToken stop = {};
  std::string progress_label = "replay";
  NewKernelClock new_clock = nullptr;  // For kernels that the cost model executes; null: the first GPU of this machine.
};

// Without a trace, an estimate (analytic_run.h).  Files appear in `out` only when the run has succeeded:
// manifest.txtpb, summary.json, steps.csv, timeline.json.
absl::StatusOr<RunReport> Run(const ResolvedExperiment& resolved, const RunOptions& options);

// One of several runs whose reports belong together.
struct RunRequest {
  const ResolvedExperiment* resolved;
  ReportFolder* folder;  // Filled, but left to the caller to commit; null: no files are written.
  // Requests before this one: this is the bound that none of them can beat (models/simulation/balanced_work.h).
  std::vector<size_t> bound_of = {};
};

// Whether two experiments replay the same steps, from the same trace, and score the same of them.
bool ReplaySameSteps(const ResolvedExperiment& a, const ResolvedExperiment& b);

// Runs experiments side by side: the trace is decoded and its steps are composed once.  The reports are those that each
// alone would give.  Plans in hindsight cost one more pass over the steps, for all of them together.  Scratch files go
// to options.out where there is one.  REQUIRES: at least one, and all replay the same steps.
absl::StatusOr<std::vector<RunReport>> RunTogether(absl::Span<const RunRequest> requests, const RunOptions& options);

}  // namespace epsim
