#include "experiments/setup.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <filesystem>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/version.h"
#include "models/catalogue.h"
#include "models/costs/cost_model.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// The experiment file that `path` means.
absl::StatusOr<std::string> ExperimentFile(const std::string& path) {
  std::error_code error;
  if (!fs::is_directory(path, error)) return path;
  std::vector<std::string> files;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (entry.path().extension() != ".txtpb") continue;
    // Other schemas may lie beside it (a synthesis, a platform): only an experiment has a workload or ranks.
    Experiment experiment;
    if (LoadTextProto(entry.path().string(), &experiment).ok()) files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  if (files.size() == 1) return files[0];
  if (files.empty()) return absl::NotFoundError(absl::StrCat(path, ": the folder holds no experiment (.txtpb)"));
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": the folder holds several experiments; name one: ", absl::StrJoin(files, ", ")));
}

std::string HexHash(const std::string& text) { return absl::StrFormat("%016x", XXH3_64bits(text.data(), text.size())); }

std::string RelativeTo(const fs::path& folder, const std::string& path) {
  return fs::path(path).is_absolute() ? path : (folder / path).lexically_normal().string();
}

bool IsFile(const std::string& name) { return name.find('/') != std::string::npos || name.ends_with(".txtpb"); }

absl::Status FillDefaults(const std::string& place, Experiment* experiment) {
  const auto error = [&](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", parts...));
  };
  if (experiment->platform().empty()) return error("platform: none named; `epsim list platforms` shows the catalogue");
  if (experiment->ranks() == 0) return error("ranks: not set; the number of GPUs in the expert-parallel group");
  if (experiment->ranks() > 4096) return error("ranks: ", experiment->ranks(), " is more than 4096");

  WorkloadConfig* workload = experiment->mutable_workload();
  switch (workload->batching_case()) {
    case WorkloadConfig::BATCHING_NOT_SET:
      workload->mutable_continuous();
      [[fallthrough]];
    case WorkloadConfig::kContinuous: {
      ContinuousBatching* batching = workload->mutable_continuous();
      if (batching->running_requests_per_rank() == 0) batching->set_running_requests_per_rank(16);
      if (batching->max_tokens_per_rank() == 0) batching->set_max_tokens_per_rank(8192);
      break;
    }
    case WorkloadConfig::kLockStep: {
      LockStepBatching* batching = workload->mutable_lock_step();
      if (batching->requests_per_rank() == 0) batching->set_requests_per_rank(16);
      if (batching->max_tokens_per_rank() == 0) batching->set_max_tokens_per_rank(8192);
      break;
    }
    case WorkloadConfig::kRecorded:
      break;
  }

  PlacementPolicyConfig* placement = experiment->mutable_placement();
  uint32_t redundant = 0;
  switch (placement->policy_case()) {
    case PlacementPolicyConfig::POLICY_NOT_SET:
      placement->mutable_contiguous();
      break;
    case PlacementPolicyConfig::kContiguous:
      break;
    case PlacementPolicyConfig::kEplb:
      redundant = 1;
      break;
  }
  if (!experiment->has_redundant_slots_per_rank()) experiment->set_redundant_slots_per_rank(redundant);
  ReplicaChoiceConfig* replica = experiment->mutable_replica_choice();
  if (replica->choice_case() == ReplicaChoiceConfig::CHOICE_NOT_SET) replica->mutable_static_nearest();

  PlanningConfig* planning = experiment->mutable_planning();
  double fraction = 0;
  switch (planning->plan_case()) {
    case PlanningConfig::PLAN_NOT_SET:
      planning->mutable_past();
      [[fallthrough]];
    case PlanningConfig::kPast:
      if (!planning->past().has_fraction()) planning->mutable_past()->set_fraction(0.25);
      fraction = planning->past().fraction();
      break;
    case PlanningConfig::kHindsight:
      if (!planning->hindsight().has_fraction()) planning->mutable_hindsight()->set_fraction(0.25);
      fraction = planning->hindsight().fraction();
      break;
  }
  if (!(fraction >= 0 && fraction < 1)) return error("planning: fraction: ", fraction, " is not in [0, 1)");
  if (planning->max_rows() == 0) planning->set_max_rows(32);
  if (planning->max_rows() > 4096) return error("planning: max_rows: ", planning->max_rows(), " is more than 4096");

  CommunicationConfig* communication = experiment->mutable_communication();
  if (communication->communication_case() == CommunicationConfig::COMMUNICATION_NOT_SET) {
    communication->mutable_all_to_all();
  }
  ScheduleConfig* schedule = experiment->mutable_schedule();
  if (!schedule->has_overlap_shared_experts()) schedule->set_overlap_shared_experts(true);
  NetworkConfig* network = experiment->mutable_network();
  if (network->network_case() == NetworkConfig::NETWORK_NOT_SET) network->mutable_port();
  OutputConfig* output = experiment->mutable_output();
  if (!output->has_timeline_steps()) output->set_timeline_steps(2);
  ASSIGN_OR_RETURN(*experiment->mutable_costs(), CompleteCostConfig(experiment->costs()));
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

  for (const std::string& assignment : request.set) {
    RETURN_IF_ERROR(SetField(assignment, experiment));
    manifest.add_overrides(absl::StrCat("--set ", assignment));
  }
  if (request.seed.has_value()) {
    experiment->set_seed(*request.seed);
    manifest.add_overrides(absl::StrCat("--seed ", *request.seed));
  }
  RETURN_IF_ERROR(FillDefaults(file, experiment));

  const fs::path folder = fs::path(file).parent_path();
  if (!request.trace.empty()) {
    resolved.trace_path = request.trace;
    manifest.add_overrides(absl::StrCat("--trace ", request.trace));
  } else if (!experiment->trace().empty()) {
    resolved.trace_path = RelativeTo(folder, experiment->trace());
  }

  if (experiment->model().empty()) {
    if (resolved.trace_path.empty()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": neither model nor trace is named; give --trace FILE"));
    }
    ASSIGN_OR_RETURN(const auto trace, TraceReader::Open(resolved.trace_path));
    experiment->set_model(trace->header().model());
  }
  if (IsFile(experiment->model())) {
    const std::string path = RelativeTo(folder, experiment->model());
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
    RETURN_IF_ERROR(LoadTextProto(RelativeTo(folder, experiment->platform()), manifest.mutable_platform()));
  } else {
    absl::StatusOr<PlatformSpec> platform = FindPlatform(experiment->platform());
    if (!platform.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", platform.status().message()));
    *manifest.mutable_platform() = *std::move(platform);
  }
  return resolved;
}

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

}  // namespace epsim
