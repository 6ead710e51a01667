// From an experiment file and overrides to everything a run needs, checked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "experiments/experiment.pb.h"
#include "models/model.pb.h"
#include "traces/format/trace_reader.h"

namespace epsim {

// An experiment as asked for on the command line.
struct ExperimentRequest {
  std::string path;              // A .txtpb file, or a folder that holds exactly one.
  std::string trace;             // Replaces the experiment's; empty: as the experiment says.
  std::vector<std::string> set;  // path.to.field=value, in order.
  std::optional<uint64_t> seed;
};

// The experiment as the simulation will see it: overrides applied, defaults filled in, names resolved.
struct ResolvedExperiment {
  // inputs: the experiment file and libraries of plug-ins, whose paths are usable from the current folder; the trace is
  // added by the run.
  Manifest manifest;
  std::string trace_path;  // Usable from the current folder; empty where none is named.

  const Experiment& experiment() const { return manifest.experiment(); }
  const ModelSpec& model() const { return manifest.model(); }
};

// Errors name file, line and column, or the override.  A model that the experiment does not name is the trace's.  A
// trace that is named must be there and fit the model.
absl::StatusOr<ResolvedExperiment> ResolveExperiment(const ExperimentRequest& request);

}  // namespace epsim
