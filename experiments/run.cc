#include "experiments/run.h"

#include <algorithm>
#include <filesystem>
#include <iostream>
#include <map>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "experiments/aggregate_load.h"
#include "experiments/assembly.h"
#include "experiments/plan.h"
#include "experiments/report_folder.h"
#include "experiments/routing_report.h"
#include "experiments/steps_csv.h"
#include "experiments/summary.h"
#include "experiments/timeline.h"
#include "models/catalogue.h"
#include "models/routing/placed_routing.h"
#include "models/simulation/simulation.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// `status` with the file that it is about, unless it says so already.
absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (absl::StrContains(status.message(), path) || absl::IsCancelled(status)) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

// Which communication strategies ran, and the most that any of them took.
class StrategyUse : public Observer {
 public:
  explicit StrategyUse(const Communication& communication)
      : communication_(communication), footprint_(communication.footprint()) {}

  void OnStage(const StageRecord&) override {}
  void OnStepEnd(const StepRecord&) override {
    ++steps_;
    ++steps_of_[communication_.name()];
    const CommunicationFootprint footprint = communication_.footprint();
    footprint_.sms = std::max(footprint_.sms, footprint.sms);
    footprint_.buffers = std::max(footprint_.buffers, footprint.buffers);
    footprint_.statistics_ride_along = footprint.statistics_ride_along;
  }

  // "deepep_normal", or "deepep_low_latency 80 %, deepep_normal 20 %".
  std::string Text() const {
    if (steps_of_.size() < 2) return communication_.name();
    return absl::StrJoin(steps_of_, ", ", [this](std::string* out, const auto& strategy) {
      absl::StrAppendFormat(out, "%s %.0f %%", strategy.first, 100.0 * static_cast<double>(strategy.second) / steps_);
    });
  }
  const CommunicationFootprint& footprint() const { return footprint_; }

 private:
  const Communication& communication_;
  CommunicationFootprint footprint_;
  std::map<std::string, int64_t> steps_of_;
  int64_t steps_ = 0;
};

// "experts MXFP4, other weights BF16, ...".
std::string PrintPrecision(const Precision& precision) {
  return absl::StrCat("experts ", NumberType_Name(precision.expert_weights()), " computed in ",
                      NumberType_Name(precision.expert_activations()), ", other weights ",
                      NumberType_Name(precision.other_weights()), ", dispatch ", NumberType_Name(precision.dispatch()),
                      ", KV cache ", NumberType_Name(precision.kv_cache()));
}

}  // namespace

std::string PlacementName(const Experiment& experiment) {
  const auto* oneof = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  const PlacementPolicyConfig& config = experiment.placement();
  const auto* field = config.GetReflection()->GetOneofFieldDescriptor(config, oneof);
  return field == nullptr ? "none" : field->name();
}

std::string JsonText(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

absl::StatusOr<RunReport> Run(const ResolvedExperiment& resolved, const RunOptions& options) {
  if (options.out.empty()) return RunInto(resolved, options, nullptr);
  ReportFolder folder(options.out);
  ASSIGN_OR_RETURN(RunReport report, RunInto(resolved, options, &folder));
  RETURN_IF_ERROR(folder.Commit());
  return report;
}

absl::StatusOr<RunReport> RunInto(const ResolvedExperiment& resolved, const RunOptions& options, ReportFolder* folder) {
  const Experiment& experiment = resolved.experiment();
  const ModelSpec& model = resolved.model();
  if (resolved.trace_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(resolved.manifest.inputs(0).path(), ": trace: none named; give --trace FILE"));
  }

  // Everything is checked before anything runs or is written.
  std::error_code no_folder;
  const std::string scratch = folder == nullptr ? fs::temp_directory_path(no_folder).string() : options.out;
  ASSIGN_OR_RETURN(const std::unique_ptr<Assembly> parts, Assemble(resolved));
  const PlacementShape& shape = parts->shape;
  if (folder != nullptr) RETURN_IF_ERROR(folder->Open());
  ASSIGN_OR_RETURN(const auto trace, TraceReader::OpenRaw(resolved.trace_path, scratch, options.stop));
  RETURN_IF_ERROR(CheckTraceFitsRouting(experiment.routing(), resolved.trace_path, trace->header()));
  const auto new_source = [&] {
    return NewStepSource(experiment.workload(), *trace, shape.ranks, experiment.seed(), options.stop,
                         ContentsForRouting(experiment.routing()));
  };
  const auto new_step_routing = [&] {
    return NewStepRouting(experiment.routing(), shape, static_cast<int>(model.top_k()));
  };
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRouting> step_routing, new_step_routing());
  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  SimulationOptions simulation{.threads = options.threads > 0 ? options.threads : cores, .stop = options.stop};
  // What is planned on is the load as routed.  The policy goes on from there, unless the plan has seen the future.
  ASSIGN_OR_RETURN(const std::unique_ptr<StepRouting> foreseen, new_step_routing());
  simulation.routing_policy = experiment.planning().has_hindsight() ? foreseen.get() : step_routing.get();
  absl::StatusOr<Plan> made = MakePlan(experiment, *parts, new_source, simulation);
  if (!made.ok()) return InFile(resolved.trace_path, made.status());
  const Plan plan = *std::move(made);
  simulation.routing_policy = step_routing.get();
  PlacedRouting routing(plan.placement, parts->replica_choice.get(), experiment.seed(), parts->communication->detail());
  RETURN_IF_ERROR(parts->replica_choice->status());

  // The replay.
  if (experiment.network().has_simgrid()) {  // Slow: said before, not only in the report.
    for (const std::string& note : parts->notes) std::cerr << "note: " << note << "\n";
  }
  Summary summary(shape.ranks);
  AggregateLoad aggregate(shape);
  std::optional<StepsCsv> steps_csv;
  std::optional<Timeline> timeline;
  if (folder != nullptr) {
    ASSIGN_OR_RETURN(WholeFile * csv_file, folder->Create("steps.csv"));
    steps_csv.emplace(csv_file);
    ASSIGN_OR_RETURN(WholeFile * timeline_file, folder->Create("timeline.json"));
    timeline.emplace(timeline_file, parts->cluster, experiment.output().timeline_steps());
  }
  StepMeter meter(parts->cluster, *parts->network, static_cast<int>(model.layers()), [&](const StepFacts& facts) {
    summary.Add(facts);
    if (steps_csv.has_value()) steps_csv->Add(facts);
  });
  StrategyUse strategies(*parts->communication);
  ForwardContext context{.model = &model,
                         .cluster = &parts->cluster,
                         .costs = parts->costs.get(),
                         .communication = parts->communication.get(),
                         .schedule = experiment.schedule(),
                         .network = parts->network.get(),
                         .queue = &parts->queue,
                         .observers = {&meter, &aggregate, &strategies}};
  if (timeline.has_value()) context.observers.push_back(&*timeline);
  RoutingGain routing_gain(shape.layers);
  if (step_routing != nullptr) context.observers.push_back(&routing_gain);
  {
    Progress progress(options.progress_label, plan.scored_steps);
    simulation.progress = &progress;
    const absl::Status status = Simulate(context, shape, routing, *plan.scored, simulation);
    if (absl::IsFailedPrecondition(status)) return InFile(resolved.manifest.inputs(0).path(), status);
    if (absl::IsDataLoss(status)) return InFile(resolved.trace_path, status);
    RETURN_IF_ERROR(status);
    RETURN_IF_ERROR(parts->replica_choice->status());
  }
  if (timeline.has_value()) timeline->Close();

  const bool hindsight = experiment.planning().has_hindsight();
  const Bytes expert_bytes =
      ExpertBytes(model, experiment.costs().precision().expert_weights()) * shape.slots_per_rank() * shape.layers;
  RunFacts facts{.placement = PlacementName(experiment),
                 .hindsight = hindsight,
                 .model = model.name(),
                 .platform = experiment.platform(),
                 .ranks = shape.ranks,
                 .nodes = shape.nodes,
                 .slots = shape.slots,
                 .experts = shape.experts,
                 .planning_steps = plan.seen_steps,
                 .trace_hash = trace->hash(),
                 .trace_synthetic = trace->header().synthetic(),
                 .batches = plan.scored->description(),
                 .resampled = plan.scored->resampled(),
                 .counts_only = trace->header().granularity() == COUNTS,
                 .trace_tokens = trace->index().tokens(),
                 .missing_ids = trace->index().missing_ids(),
                 .aggregate_balancedness = aggregate.Balancedness(),
                 .communication = strategies.Text(),
                 .footprint = strategies.footprint(),
                 .expert_bytes_per_gpu = expert_bytes,
                 .gpu_memory = *ParseBytes(resolved.manifest.platform().gpu().memory()),
                 .precision = PrintPrecision(experiment.costs().precision()),
                 .notes = parts->notes};
  if (step_routing != nullptr) {
    facts.routing = RoutingJson(experiment.routing(), *step_routing, routing_gain);
    facts.routing_matrix = step_routing->memory();
    for (std::string& note : RoutingNotes(experiment.routing(), *step_routing)) facts.notes.push_back(std::move(note));
  }
  if (facts.expert_bytes_per_gpu + facts.footprint.buffers + facts.routing_matrix > facts.gpu_memory) {
    facts.notes.push_back(
        "does not fit: expert weights and communication buffers alone are larger than the memory of a GPU");
  }
  for (std::string& note : parts->communication->notes()) facts.notes.push_back(std::move(note));
  if (plan.seen_steps == 0 && GoesByLoad(experiment.placement())) {
    facts.notes.push_back("no load had been seen before the scored steps: placed as a server starts, contiguous");
  }
  if (hindsight) facts.notes.push_back("hindsight: planned on the steps that are scored; a bound, not a policy");
  if (!facts.trace_synthetic.empty()) facts.notes.push_back("synthetic trace: " + facts.trace_synthetic);
  if (facts.resampled) facts.notes.push_back("requests were resampled: the trace has too few for this many ranks");
  if (facts.counts_only) {
    facts.notes.push_back(
        "the trace has counts only: traffic is its expectation if tokens chose experts independently");
  }
  if (facts.missing_ids > 0) facts.notes.push_back(absl::StrCat(facts.missing_ids, " ids were not captured"));
  RunReport report{.summary = summary.Json(facts), .step_time_us = summary.step_time_us()};

  if (folder != nullptr) {
    ASSIGN_OR_RETURN(WholeFile * summary_file, folder->Create("summary.json"));
    summary_file->Write(JsonText(report.summary));
    Manifest manifest = resolved.manifest;
    Manifest::Input* input = manifest.add_inputs();
    input->set_path(resolved.trace_path);
    input->set_xxh3(trace->hash());
    ASSIGN_OR_RETURN(WholeFile * manifest_file, folder->Create("manifest.txtpb"));
    manifest_file->Write(PrintTextProto(manifest));
  }
  return report;
}

}  // namespace epsim
