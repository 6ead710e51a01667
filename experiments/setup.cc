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
#include "experiments/engine_options.h"
#include "experiments/routing_report.h"
#include "experiments/version.h"
#include "models/calibration/calibration_table.h"
#include "models/catalogue.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/schedule/schedule_config.h"
#include "platforms/cluster.h"
#include "policies/placement/placement_policy.h"
#include "policies/rebalance/expert_profiler.h"
#include "policies/rebalance/rebalance_config.h"
#include "policies/replica/replica_choice.h"
#include "policies/routing/routing_policy.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// Far more than any engine takes, and far from overflow.
constexpr uint32_t kMostRedundantSlots = 4096;
constexpr uint32_t kMostContextTokens = 100'000'000;

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

// The bytes of a policy's library decide the answer, too.
absl::Status AddLibrary(const Plugin& plugin, const char* field, Manifest* manifest) {
  const std::string& path = plugin.library();
  if (path.empty()) return absl::OkStatus();  // Refused where it is loaded.
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_regular_file(path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(field, ".plugin.library: ", path, ": not a file"));
  }
  for (const Manifest::Input& input : manifest->inputs()) {
    if (input.path() == path) return absl::OkStatus();
  }
  const absl::StatusOr<std::string> bytes = ReadFile(path);
  if (!bytes.ok()) {
    return absl::Status(bytes.status().code(), absl::StrCat(field, ".plugin.library: ", bytes.status().message()));
  }
  Manifest::Input* input = manifest->add_inputs();
  input->set_path(path);
  input->set_xxh3(HexHash(*bytes));
  return absl::OkStatus();
}

// So do the bytes of a folder of tables.  One that cannot be read is refused where it is used.
absl::Status AddTables(const std::string& folder, Manifest* manifest) {
  if (folder.find('/') == std::string::npos) return absl::OkStatus();
  const absl::StatusOr<Calibration> calibration = ReadCalibrationFolder(folder);
  if (!calibration.ok()) return absl::OkStatus();
  for (const std::string& path : calibration->files) {
    ASSIGN_OR_RETURN(const std::string bytes, ReadFile(path));
    Manifest::Input* input = manifest->add_inputs();
    input->set_path(path);
    input->set_xxh3(HexHash(bytes));
  }
  return absl::OkStatus();
}

// `granularity`: of the trace, unknown without one.
absl::Status FillDefaults(const std::string& place, Granularity granularity, Experiment* experiment) {
  const auto error = [&](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", parts...));
  };
  if (granularity == GRANULARITY_UNKNOWN) {
    AnalyticConfig* analytic = experiment->mutable_analytic();
    if (analytic->context_tokens() == 0) analytic->set_context_tokens(1024);
    if (analytic->context_tokens() > kMostContextTokens) {
      return error("analytic.context_tokens: ", analytic->context_tokens(), " is more than ", kMostContextTokens);
    }
  } else if (experiment->has_analytic()) {
    return error("analytic: assumed where no trace is named, and ", experiment->trace(), " is");
  }
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
  *experiment->mutable_replica_choice() = CompleteReplicaChoiceConfig(experiment->replica_choice());

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

  absl::StatusOr<RebalanceConfig> rebalance = CompleteRebalanceConfig(experiment->rebalance());
  if (!rebalance.ok()) return error(rebalance.status().message());
  *experiment->mutable_rebalance() = *std::move(rebalance);
  if (!experiment->rebalance().has_none()) {
    if (!GoesByLoad(*placement) && !placement->has_random()) {  // Which draws anew each time.
      return error("rebalance: placement ", PlacementName(*placement), " does not go by load: it would change nothing");
    }
    if (planning->has_hindsight()) {
      return error(
          "rebalance: a placement planned in hindsight is a bound that stays as it is; planning.past would do");
    }
  }
  if (experiment->rebalance().has_online()) experiment->mutable_schedule()->set_load_statistics(true);

  absl::StatusOr<ElasticConfig> elastic = CompleteElasticConfig(experiment->elastic());
  if (!elastic.ok()) return error(elastic.status().message());
  *experiment->mutable_elastic() = *std::move(elastic);
  absl::StatusOr<ProfilerConfig> profiler = CompleteProfilerConfig(experiment->profiler());
  if (!profiler.ok()) return error("profiler: ", profiler.status().message());
  *experiment->mutable_profiler() = *std::move(profiler);

  *experiment->mutable_communication() = CompleteCommunicationConfig(experiment->communication());
  absl::StatusOr<ScheduleConfig> schedule = CompleteScheduleConfig(experiment->schedule());
  if (!schedule.ok()) return error(schedule.status().message());
  *experiment->mutable_schedule() = *std::move(schedule);
  NetworkConfig* network = experiment->mutable_network();
  if (network->network_case() == NetworkConfig::NETWORK_NOT_SET) network->mutable_port();
  OutputConfig* output = experiment->mutable_output();
  if (!output->has_timeline_steps()) output->set_timeline_steps(2);
  absl::StatusOr<RoutingPolicyConfig> routing = CompleteRoutingConfig(experiment->routing());
  if (!routing.ok()) return error(routing.status().message());
  *experiment->mutable_routing() = *std::move(routing);
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
  if (experiment->placement().has_plugin()) {
    Plugin* plugin = experiment->mutable_placement()->mutable_plugin();
    plugin->set_library(located(plugin->library(), as_written.placement().plugin().library(), false));
    RETURN_IF_ERROR(AddLibrary(*plugin, "placement", &manifest));
  }
  if (experiment->replica_choice().has_plugin()) {
    Plugin* plugin = experiment->mutable_replica_choice()->mutable_plugin();
    plugin->set_library(located(plugin->library(), as_written.replica_choice().plugin().library(), false));
    RETURN_IF_ERROR(AddLibrary(*plugin, "replica_choice", &manifest));
  }
  if (experiment->routing().has_plugin()) {
    Plugin* plugin = experiment->mutable_routing()->mutable_plugin();
    plugin->set_library(located(plugin->library(), as_written.routing().plugin().library(), false));
    RETURN_IF_ERROR(AddLibrary(*plugin, "routing", &manifest));
  }
  CostConfig* costs = experiment->mutable_costs();
  const CostConfig& costs_written = as_written.costs();
  if (costs->has_measured() || costs->replay().has_measured()) {
    MeasuredConfig* measured =
        costs->has_measured() ? costs->mutable_measured() : costs->mutable_replay()->mutable_measured();
    const MeasuredConfig& written =
        costs->has_measured() ? costs_written.measured() : costs_written.replay().measured();
    if (measured->table().find('/') != std::string::npos) {  // Else a name in the catalogue.
      const std::string folder = located(measured->table(), written.table(), false);
      measured->set_table(folder.find('/') == std::string::npos ? "./" + folder : folder);
    }
    RETURN_IF_ERROR(AddTables(measured->table(), &manifest));
  }
  if (costs->has_replay()) {
    ReplayConfig* replay = costs->mutable_replay();
    replay->set_cache(located(replay->cache(), costs_written.replay().cache(), false));
  }
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
  if (const absl::Status status = ApplyEngineOptions(static_cast<int>(manifest.model().experts()), experiment);
      !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", status.message()));
  }
  RETURN_IF_ERROR(FillDefaults(file, trace ? trace->header().granularity() : GRANULARITY_UNKNOWN, experiment));
  if (IsFile(experiment->platform())) {
    RETURN_IF_ERROR(
        LoadTextProto(located(experiment->platform(), as_written.platform(), false), manifest.mutable_platform()));
  } else {
    absl::StatusOr<PlatformSpec> platform = FindPlatform(experiment->platform());
    if (!platform.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", platform.status().message()));
    *manifest.mutable_platform() = *std::move(platform);
  }
  if (!experiment->costs().has_permutation()) {
    experiment->mutable_costs()->set_permutation(!experiment->communication().has_deepep_low_latency());
  }
  absl::StatusOr<CostConfig> complete = CompleteCostConfig(experiment->costs(), manifest.platform().gpu());
  if (!complete.ok()) return absl::InvalidArgumentError(absl::StrCat(file, ": ", complete.status().message()));
  *experiment->mutable_costs() = *std::move(complete);
  if (trace != nullptr) {
    RETURN_IF_ERROR(CheckTraceFitsModel(*trace, manifest.model()));
    RETURN_IF_ERROR(CheckTraceFitsRouting(experiment->routing(), resolved.trace_path, trace->header()));
  }
  return resolved;
}

}  // namespace epsim
