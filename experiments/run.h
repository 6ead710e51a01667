// Runs one experiment: a pure function of the configuration and the bytes of the trace.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "experiments/report_folder.h"
#include "experiments/setup.h"
#include "nlohmann/json.hpp"

namespace epsim {

struct RunOptions {
  std::string out = {};  // Folder for the report's files, made if need be; empty: none are written.
  int threads = 0;  // 0: one per core.  The report does not depend on it.
  StopToken stop = {};
  std::string progress_label = "replay";
};

struct RunReport {
  nlohmann::ordered_json summary;
  std::vector<double> step_time_us;  // [scored steps]
};

// Without a trace, an estimate (analytic_run.h).  Files appear in `out` only when the run has succeeded: manifest.txtpb, summary.json, steps.csv, timeline.json.
absl::StatusOr<RunReport> Run(const ResolvedExperiment& resolved, const RunOptions& options);

// As Run, for one of several runs whose reports belong together: `folder`, for options.out, is filled but left to the
// caller to commit; null where there is none.
absl::StatusOr<RunReport> RunInto(const ResolvedExperiment& resolved, const RunOptions& options, ReportFolder* folder);

// Every JSON text that epsim writes: two spaces a level, a new line at the end; bytes that are not UTF-8 (from names
// that a user gave) are replaced.
std::string JsonText(const nlohmann::ordered_json& json);

// "experts MXFP4, other weights BF16, ...".
std::string PrintPrecision(const Precision& precision);

// The name of the experiment's placement policy, as the schema spells it.
std::string PlacementName(const Experiment& experiment);

}  // namespace epsim
