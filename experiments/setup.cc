#include "experiments/setup.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/version.h"
#include "models/catalogue.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/schedule/schedule_config.h"
#include "platforms/cluster.h"
#include "policies/placement/placement_policy.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// Far more than any engine takes, and far from overflow.
constexpr uint32_t kMostRedundantSlots = 4096;

// The experiment file that `path` means.
absl::StatusOr<std::string> ExperimentFile(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return path;
  std::vector<std::string> candidates, experiments;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (entry.path().extension() == ".txtpb") candidates.push_back(entry.path().string());
  }
  std::sort(candidates.begin(), candidates.end());
  // Files of other schemas may lie beside it: a synthesis, a platform.
  absl::Status first_error;
  for (const std::string& candidate : candidates) {
    Experiment experiment;
    absl::Status status = LoadTextProto(candidate, &experiment);
    if (status.ok()) {
      experiments.push_back(candidate);
    } else if (first_error.ok()) {
      first_error = std::move(status);
    }
  }
  if (experiments.size() == 1) return experiments[0];
  if (experiments.empty() && !first_error.ok()) return first_error;
  if (experiments.empty()) return absl::NotFoundError(absl::StrCat(path, ": the folder holds no experiment (.txtpb)"));
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": the folder holds several experiments; name one: ", absl::StrJoin(experiments, ", ")));
}

std::string HexHash(const std::string& text) { return absl::StrFormat("%016x", XXH3_64bits(text.data(), text.size())); }

// Whether a model or platform is named by a file of its own.
bool IsFile(const std::string& name) { return name.find('/') != std::string::npos || name.ends_with(".txtpb"); }

// Whether the trace was captured on a model of this shape.
absl::Status CheckTraceFitsModel(const TraceReader& trace, const ModelSpec& model) {
  const TraceHeader& header = trace.header();
  const auto differ = [&](const char* what, uint32_t in_trace, uint32_t in_model) {
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": the trace (", header.model(), ") has ", in_trace,
                                                   " ", what, ", the model (", model.name(), ") has ", in_model));
  };
  if (header.layers() != model.moe_layers()) return differ("MoE layers", header.layers(), model.moe_layers());
  if (header.experts() != model.experts()) return differ("experts", header.experts(), model.experts());
  if (header.top_k() != model.top_k()) return differ("experts a token (top-k)", header.top_k(), model.top_k());
  return absl::OkStatus();
}

// `granularity`: of the trace, unknown without one.
absl::Status FillDefaults(const std::string& place, Granularity granularity, Experiment* experiment) {
  const auto error = [&](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", parts...));
  };
  if (experiment->platform().empty()) return error("platform: none named; `epsim list platforms` shows the catalogue");
  if (experiment->ranks() == 0) return error("ranks: not set; the number of GPUs in the expert-parallel group");
  *experiment->mutable_workload() = CompleteWorkloadConfig(experiment->workload(), granularity);

  PlacementPolicyConfig* placement = experiment->mutable_placement();
  if (placement->policy_case() == PlacementPolicyConfig::POLICY_NOT_SET) placement->mutable_contiguous();
  if (!experiment->has_redundant_slots_per_rank()) {
    experiment->set_redundant_slots_per_rank(GoesByLoad(*placement) ? 1 : 0);
  }
  if (experiment->redundant_slots_per_rank() > kMostRedundantSlots) {
    return error("redundant_slots_per_rank: ", experiment->redundant_slots_per_rank(), " is more than ",
                 kMostRedundantSlots);
  }
  ReplicaChoiceConfig* replica = experiment->mutable_replica_choice();
  if (replica->choice_case() == ReplicaChoiceConfig::CHOICE_NOT_SET) replica->mutable_static_nearest();

  PlanningConfig* planning = experiment->mutable_planning();
  if (placement->has_oracle()) {
    if (planning->has_past()) {
      return error(
          "planning.past: the oracle plans on the steps that are scored; planning { hindsight {} }, or none, "
          "would fit");
    }
    planning->mutable_hindsight();
  }
  if (planning->plan_case() == PlanningConfig::PLAN_NOT_SET) planning->mutable_past();
  if (!planning->has_fraction()) planning->set_fraction(0.25);
  if (!(planning->fraction() >= 0 && planning->fraction() < 1)) {
    return error("planning.fraction: ", planning->fraction(), " is not in [0, 1)");
  }
  if (planning->max_rows() == 0) planning->set_max_rows(32);
  if (planning->max_rows() > 4096) return error("planning.max_rows: ", planning->max_rows(), " is more than 4096");

  *experiment->mutable_communication() = CompleteCommunicationConfig(experiment->communication());
  absl::StatusOr<ScheduleConfig> schedule = CompleteScheduleConfig(experiment->schedule());
  if (!schedule.ok()) return error(schedule.status().message());
  *experiment->mutable_schedule() = *std::move(schedule);
  NetworkConfig* network = experiment->mutable_network();
  if (network->network_case() == NetworkConfig::NETWORK_NOT_SET) network->mutable_port();
  OutputConfig* output = experiment->mutable_output();
  if (!output->has_timeline_steps()) output->set_timeline_steps(2);
  absl::StatusOr<CostConfig> costs = CompleteCostConfig(experiment->costs());
  if (!costs.ok()) return error(costs.status().message());
  *experiment->mutable_costs() = *std::move(costs);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ResolvedExperiment> ResolveExperiment(const ExperimentRequest& request) {
  ResolvedExperiment resolved;
  Manifest& manifest = resolved.manifest;
  manifest.set_epsim_version(kVersion);

  ASSIGN_OR_RETURN(const std::string file, ExperimentFile(request.path));
  ASSIGN_OR_RETURN(const std::string text, ReadFile(file));
  Experiment* experiment = manifest.mutable_experiment();
  RETURN_IF_ERROR(ParseTextProto(text, file, experiment));
  Manifest::Input* input = manifest.add_inputs();
  input->set_path(file);
  input->set_xxh3(HexHash(text));

  // Overrides.  A file that the experiment names lies beside it, one that an override names in the current folder.
  const Experiment as_written = *experiment;
  for (const std::string& assignment : request.set) {
    RETURN_IF_ERROR(SetField(assignment, experiment));
    manifest.add_overrides(absl::StrCat("--set ", assignment));
  }
  if (request.seed.has_value()) {
    experiment->set_seed(*request.seed);
    manifest.add_overrides(absl::StrCat("--seed ", *request.seed));
  }
  if (!request.trace.empty()) {
    if (experiment->trace() != as_written.trace()) {
      return absl::InvalidArgumentError(absl::StrCat("--trace ", request.trace, ": the trace is also set to ",
                                                     experiment->trace(), "; give one of the two"));
    }
    experiment->set_trace(request.trace);
    manifest.add_overrides(absl::StrCat("--trace ", request.trace));
  }
  const auto located = [&](const std::string& name, const std::string& written, bool overridden) {
    if (name.empty() || name != written || overridden || fs::path(name).is_absolute()) return name;
    return (fs::path(file).parent_path() / name).lexically_normal().string();
  };
  resolved.trace_path = located(experiment->trace(), as_written.trace(), !request.trace.empty());

  std::unique_ptr<TraceReader> trace;
  if (!resolved.trace_path.empty()) {
    ASSIGN_OR_RETURN(trace, TraceReader::Open(resolved.trace_path));
  }
  RETURN_IF_ERROR(FillDefaults(file, trace ? trace->header().granularity() : GRANULARITY_UNKNOWN, experiment));
  if (experiment->model().empty()) {
    if (trace == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": neither model nor trace is named; give --trace FILE"));
    }
    experiment->set_model(trace->header().model());
  }
  if (IsFile(experiment->model())) {
    const std::string path = located(experiment->model(), as_written.model(), false);
    RETURN_IF_ERROR(LoadTextProto(path, manifest.mutable_model()));
    if (const absl::Status status = ValidateModel(manifest.model()); !status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(path, ": ", status.message()));
    }
  } else {
    absl::StatusOr<ModelSpec> model = FindModel(experiment->model());
    if (!model.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", model.status().message()));
    *manifest.mutable_model() = *std::move(model);
  }
  if (IsFile(experiment->platform())) {
    RETURN_IF_ERROR(
        LoadTextProto(located(experiment->platform(), as_written.platform(), false), manifest.mutable_platform()));
  } else {
    absl::StatusOr<PlatformSpec> platform = FindPlatform(experiment->platform());
    if (!platform.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", platform.status().message()));
    *manifest.mutable_platform() = *std::move(platform);
  }
  if (trace != nullptr) RETURN_IF_ERROR(CheckTraceFitsModel(*trace, manifest.model()));
  return resolved;
}

}  // namespace epsim
