#include "experiments/replay_run.h"

#include <algorithm>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "experiments/human_bytes.h"
#include "experiments/json_text.h"
#include "experiments/rebalance_report.h"
#include "models/catalogue.h"
#include "models/simulation/profiling.h"
#include "policies/placement/contiguous_placement.h"
#include "policies/rebalance/slot_moves.h"

namespace epsim {
namespace {

// "experts MXFP4, other weights BF16, ...".
std::string PrintPrecision(const Precision& precision) {
  return absl::StrCat("experts ", NumberType_Name(precision.expert_weights()), " computed in ",
                      NumberType_Name(precision.expert_activations()), ", other weights ",
                      NumberType_Name(precision.other_weights()), ", dispatch ", NumberType_Name(precision.dispatch()),
                      ", KV cache ", NumberType_Name(precision.kv_cache()));
}

// What moving weights takes of memory.
std::vector<std::string> MigrationNotes(const ResolvedExperiment& resolved, const PlacementShape& shape) {
  std::vector<std::string> notes;
  const Experiment& experiment = resolved.experiment();
  const Bytes expert = ExpertBytes(resolved.model(), experiment.costs().precision().expert_weights());
  const RebalanceConfig& rebalance = experiment.rebalance();
  if (!rebalance.has_none() && rebalance.migration().buffered()) {
    notes.push_back(absl::StrCat("a buffer of ",
                                 HumanBytes(static_cast<double>((expert * shape.slots_per_rank()).count())),
                                 " a GPU receives the weights of a layer"));
  }
  const bool staged = (!rebalance.has_none() && rebalance.migration().source() == MigrationConfig::HOST) ||
                      !experiment.elastic().failures().empty();
  if (!staged) return notes;
  const Bytes host = expert * shape.experts * shape.layers;
  const std::string& memory = resolved.manifest.platform().host().memory();
  notes.push_back(absl::StrCat("each node stages all experts in ", HumanBytes(static_cast<double>(host.count())),
                               " of host memory, ", HostStaging(shape).staged_per_rank(), " of each layer a rank"));
  if (!memory.empty() && *ParseBytes(memory) < host) {
    notes.push_back(absl::StrCat("does not fit: the host has ", memory));
  }
  return notes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ReplayRun>> ReplayRun::Create(const ResolvedExperiment& resolved, ReportFolder* folder,
                                                             std::shared_ptr<WorkTimes> times) {
  ASSIGN_OR_RETURN(std::unique_ptr<Assembly> parts, Assemble(resolved, std::move(times)));
  std::unique_ptr<ReplayRun> run(new ReplayRun(resolved, folder, std::move(parts)));
  for (std::unique_ptr<StepRouting>* routing : {&run->step_routing_, &run->foreseen_}) {
    ASSIGN_OR_RETURN(*routing, NewStepRouting(resolved.experiment().routing(), run->shape(),
                                              static_cast<int>(resolved.model().top_k())));
  }
  return run;
}

absl::Status ReplayRun::CheckTrace(const TraceHeader& header) const {
  return CheckTraceFitsRouting(experiment().routing(), resolved_.trace_path, header);
}

ReplayRun::ReplayRun(const ResolvedExperiment& resolved, ReportFolder* folder, std::unique_ptr<Assembly> parts)
    : resolved_(resolved),
      folder_(folder),
      parts_(std::move(parts)),
      rebalance_random_(experiment().seed(), "rebalance"),
      summary_(shape().ranks),
      aggregate_(shape()),
      strategies_(*parts_->communication),
      meter_(parts_->cluster, *parts_->network, static_cast<int>(resolved.model().layers()),
             [this](const StepFacts& facts) {
               summary_.Add(facts);
               if (steps_csv_.has_value()) steps_csv_->Add(facts);
             }),
      routing_gain_(shape().layers) {
  if (GoesByProfile(experiment().placement())) {
    profiler_.emplace(experiment().profiler(), shape().layers, shape().experts);
  }
  if (GoesByCoActivation(experiment().placement())) co_activation_.emplace(experiment().seed());
}

void ReplayRun::Watch(const StepBatch& batch, absl::Span<const int32_t> tokens) {
  if (co_activation_.has_value()) co_activation_->Add(batch);
  if (!profiler_.has_value() || !profiler_->BeginStep()) return;
  // Experts in order, without replicas.
  const int ranks = shape().ranks, experts = shape().experts;
  PlacementShape shape_at_start = shape();
  shape_at_start.slots = (experts + ranks - 1) / ranks * ranks;
  if (!as_started_.has_value()) as_started_ = PlaceContiguously(shape_at_start);
  std::vector<int32_t> of_slot(shape_at_start.slots);
  for (int layer = 0; layer < shape().layers; ++layer) {
    const absl::Span<const int32_t> of_expert = tokens.subspan(static_cast<size_t>(layer) * experts, experts);
    std::copy(of_expert.begin(), of_expert.end(), of_slot.begin());
    ProfileLayer(*parts_->costs, parts_->expert_cost_scale.get(), *as_started_, Layer{layer}, of_slot, &*profiler_);
  }
}

absl::Status ReplayRun::Prepare(const RecordedLoad& seen) {
  if (experiment().planning().has_cold()) return Prepare(PlaceContiguously(shape()));
  seen_steps_ = seen.steps;
  const CoActivation together = co_activation_.has_value() ? co_activation_->view() : CoActivation{};
  ASSIGN_OR_RETURN(Placement placement,
                   PlanPlacement(experiment(), *parts_, seen, profiler_.has_value() ? profiler_->Profile() : nullptr,
                                 together.tokens > 0 ? &together : nullptr));
  return Prepare(std::move(placement));
}

absl::Status ReplayRun::Prepare(Placement placement) {
  if (experiment().network().has_simgrid()) {  // Slow: said before, not only in the report.
    for (const std::string& note : parts_->notes) std::cerr << "note: " << note << "\n";
  }
  routing_.emplace(std::move(placement), parts_->replica_choice.get(), experiment().seed(),
                   parts_->communication->detail());
  RETURN_IF_ERROR(parts_->replica_choice->status());
  ForwardContext context{.model = &resolved_.model(),
                         .cluster = &parts_->cluster,
                         .costs = parts_->costs.get(),
                         .expert_cost_scale = parts_->expert_cost_scale.get(),
                         .communication = parts_->communication.get(),
                         .schedule = experiment().schedule(),
                         .network = parts_->network.get(),
                         .queue = &parts_->queue,
                         .observers = {&meter_, &aggregate_, &strategies_},
                         .router_overhead = parts_->router_overhead};
  if (folder_ != nullptr) {
    ASSIGN_OR_RETURN(WholeFile * csv_file, folder_->Create("steps.csv"));
    steps_csv_.emplace(csv_file);
    ASSIGN_OR_RETURN(WholeFile * timeline_file, folder_->Create("timeline.json"));
    timeline_.emplace(timeline_file, parts_->cluster, experiment().output().timeline_steps());
    context.observers.push_back(&*timeline_);
  }
  if (step_routing_ != nullptr) context.observers.push_back(&routing_gain_);
  simulation_.emplace(
      context, &*routing_,
      RebalanceSetup{.config = experiment().rebalance(),
                     .policy = parts_->placement_policy.get(),
                     .cost_view = parts_->cost_view.get(),
                     .expert_bytes = ExpertBytes(resolved_.model(), experiment().costs().precision().expert_weights()),
                     .copy_rate = parts_->copy_rate,
                     .random = &rebalance_random_,
                     .elastic = experiment().elastic(),
                     .profiler = profiler_.has_value() ? &*profiler_ : nullptr,
                     .co_activation = co_activation_.has_value() ? &*co_activation_ : nullptr},
      step_routing_.get());
  return absl::OkStatus();
}

std::vector<std::string> ReplayRun::Notes(const ReplayedSteps& replayed, const RunFacts& facts) const {
  std::vector<std::string> notes = replayed.notes;
  notes.insert(notes.end(), parts_->notes.begin(), parts_->notes.end());
  if (facts.expert_bytes_per_gpu + facts.footprint.buffers + facts.routing_matrix > facts.gpu_memory) {
    notes.push_back("does not fit: expert weights and communication buffers alone are larger than the memory of a GPU");
  }
  for (std::string& note : MigrationNotes(resolved_, shape())) notes.push_back(std::move(note));
  for (std::string& note : parts_->costs->notes()) notes.push_back(std::move(note));
  for (std::string& note : parts_->communication->notes()) notes.push_back(std::move(note));
  if (seen_steps_ == 0 && !replayed.trace_path.empty() && GoesByLoad(experiment().placement())) {
    notes.push_back("no load had been seen before the scored steps: placed as a server starts, contiguous");
  }
  if (is_bound_) {
    notes.push_back("perfect balance: every rank has the mean of all work and of the traffic; a bound, not a policy");
  }
  if (hindsight()) notes.push_back("hindsight: planned on the steps that are scored; a bound, not a policy");
  if (step_routing_ != nullptr) {
    for (std::string& note : RoutingNotes(experiment().routing(), *step_routing_)) notes.push_back(std::move(note));
  }
  if (!replayed.synthetic.empty()) notes.push_back("synthetic trace: " + replayed.synthetic);
  if (replayed.resampled) notes.push_back("requests were resampled: the trace has too few for this many ranks");
  if (replayed.counts_only && !replayed.trace_path.empty()) {
    notes.push_back("the trace has counts only: traffic is its expectation if tokens chose experts independently");
  }
  if (experiment().rebalance().measure_planning_time()) {
    notes.push_back("plans took what they took on this machine: another run gives another report");
  }
  if (facts.missing_ids > 0) notes.push_back(absl::StrCat(facts.missing_ids, " ids were not captured"));
  return notes;
}

absl::StatusOr<RunReport> ReplayRun::Report(const ReplayedSteps& replayed) {
  RETURN_IF_ERROR(parts_->replica_choice->status());
  if (timeline_.has_value()) timeline_->Close();
  const ModelSpec& model = resolved_.model();
  RunFacts facts{.placement = is_bound_ ? "perfect_balance" : PlacementName(experiment().placement()),
                 .hindsight = hindsight(),
                 .model = model.name(),
                 .platform = experiment().platform(),
                 .ranks = shape().ranks,
                 .nodes = shape().nodes,
                 .slots = shape().slots,
                 .experts = shape().experts,
                 .planning_steps = seen_steps_,
                 .trace_hash = replayed.trace_hash,
                 .trace_synthetic = replayed.synthetic,
                 .batches = replayed.batches,
                 .resampled = replayed.resampled,
                 .counts_only = replayed.counts_only,
                 .trace_tokens = replayed.trace_tokens,
                 .missing_ids = replayed.missing_ids,
                 .aggregate_balancedness = aggregate_.Balancedness(),
                 .communication = strategies_.Text(),
                 .footprint = strategies_.footprint(),
                 .expert_bytes_per_gpu = ExpertBytes(model, experiment().costs().precision().expert_weights()) *
                                         shape().slots_per_rank() * shape().layers,
                 .gpu_memory = *ParseBytes(resolved_.manifest.platform().gpu().memory()),
                 .precision = PrintPrecision(experiment().costs().precision()),
                 .rebalancing = RebalancesJson(experiment().rebalance(), simulation_->rebalances()),
                 .notes = {}};
  if (step_routing_ != nullptr) {
    facts.routing = RoutingJson(experiment().routing(), *step_routing_, routing_gain_);
    facts.routing_matrix = step_routing_->memory();
  }
  facts.notes = Notes(replayed, facts);
  RunReport report{.summary = summary_.Json(facts), .step_time_us = summary_.step_time_us()};
  if (!replayed.analytic.is_null()) report.summary["analytic"] = replayed.analytic;
  if (folder_ == nullptr) return report;

  if (profiler_.has_value()) {
    ASSIGN_OR_RETURN(WholeFile * experts_file, folder_->Create("experts.txt"));
    experts_file->Write(profiler_->Table());
  }
  ASSIGN_OR_RETURN(WholeFile * summary_file, folder_->Create("summary.json"));
  summary_file->Write(JsonText(report.summary));
  Manifest manifest = resolved_.manifest;
  if (!replayed.trace_path.empty()) {
    Manifest::Input* input = manifest.add_inputs();
    input->set_path(replayed.trace_path);
    input->set_xxh3(replayed.trace_hash);
  }
  ASSIGN_OR_RETURN(WholeFile * manifest_file, folder_->Create("manifest.txtpb"));
  manifest_file->Write(PrintTextProto(manifest));
  return report;
}

}  // namespace epsim
