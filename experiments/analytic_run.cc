#include "experiments/analytic_run.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/status_macros.h"
#include "experiments/replay_run.h"
#include "experiments/report_folder.h"
#include "models/load/uniform_load.h"
#include "models/simulation/simulation.h"
#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

// Of the estimate of the busiest rank's tokens: as many batches as draw this many pairs, within bounds.
int64_t Samples(const LoadCase& load) {
  return std::clamp((int64_t{1} << 23) / (load.batch * load.top_k), int64_t{200}, int64_t{20'000});
}

absl::StatusOr<int64_t> RequestsPerRank(const WorkloadConfig& workload) {
  int64_t requests = 0, most = 0;
  if (workload.has_continuous()) {
    requests = workload.continuous().running_requests_per_rank();
    most = workload.continuous().max_tokens_per_rank();
  } else if (workload.has_lock_step()) {
    requests = workload.lock_step().requests_per_rank();
    most = workload.lock_step().max_tokens_per_rank();
  } else {
    return absl::InvalidArgumentError(
        "trace: none named, and the workload replays recorded steps; give --trace FILE, or batching continuous or "
        "lock_step for an analytic estimate");
  }
  if (requests > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("workload: ", requests, " requests a rank do not fit into a step of max_tokens_per_rank ", most));
  }
  return requests;
}

// The one step.
class ExpectedStep : public StepSource {
 public:
  ExpectedStep(const UniformLoad& load, int64_t requests_per_rank, int64_t context_tokens, int layers)
      : requests_per_rank_(requests_per_rank) {
    for (int layer = 0; layer < layers; ++layer) {
      const std::vector<uint32_t> counts = UniformCounts(load, layer);
      counts_.insert(counts_.end(), counts.begin(), counts.end());
    }
    batch_.tokens = static_cast<int>(load.of.batch);
    for (int rank = 0; rank <= load.of.chips; ++rank) {
      batch_.rank_begin.push_back(static_cast<int32_t>(rank * requests_per_rank));
    }
    batch_.attention.assign(load.of.chips, {.tokens = requests_per_rank,
                                            .sequences = requests_per_rank,
                                            .decode_tokens = requests_per_rank,
                                            .attended_tokens = requests_per_rank * context_tokens,
                                            .context_tokens = requests_per_rank * context_tokens,
                                            .output_tokens = requests_per_rank});
    batch_.layers = layers;
    batch_.top_k = load.of.top_k;
    batch_.counts = counts_.data();
  }

  absl::StatusOr<const StepBatch*> Next(SimTime) override { return std::exchange(given_, true) ? nullptr : &batch_; }
  std::optional<int64_t> total_steps() const override { return 1; }
  std::string description() const override {
    return absl::StrCat("one expected decode step, ", requests_per_rank_, " requests a rank");
  }
  bool resampled() const override { return false; }

 private:
  const int64_t requests_per_rank_;
  std::vector<uint32_t> counts_;  // [layers, experts]
  StepBatch batch_;
  bool given_ = false;
};

// Experts in order, as ExpertsOfChip deals them; the last slot of a rank with fewer is empty.
Placement InOrder(const PlacementShape& shape, const LoadCase& load) {
  PlacementDraft draft(shape, {});
  for (const Layer layer : draft.layers()) {
    const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
    std::fill(experts.begin(), experts.end(), kNoExpert);
    int32_t expert = 0;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      for (int i = 0; i < ExpertsOfChip(load, rank); ++i)
        experts[rank * shape.slots_per_rank() + i] = LogicalExpert(expert++);
    }
    draft.OrderBySlot(layer);
  }
  return std::move(draft).Finish();
}

nlohmann::ordered_json Assumptions(const UniformLoad& load, const CostModel& costs, int64_t context_tokens) {
  const LoadCase& of = load.of;
  nlohmann::ordered_json json;
  json["routing"] = "uniform, independent";
  json["tokens"] = of.batch;
  json["context_tokens"] = context_tokens;
  json["experts_per_rank"] = ExpertsOfChip(of, 0);
  json["max_expert_load"] = load.most_active;
  json["method"] = "exact";
  json["standard_error"] = 0;
  json["mean_expert_load"] = load.active / of.chips;
  json["max_pairs"] = load.most_pairs.mean;
  json["max_pairs_standard_error"] = load.most_pairs.standard_error;
  json["mean_pairs"] = static_cast<double>(of.batch * of.top_k) / of.chips;
  json["expert_layer_us"] = Microseconds(ExpectedExpertTime(load, costs).time);
  return json;
}

std::vector<std::string> Notes(const Experiment& as_asked, const ModelSpec& model) {
  std::vector<std::string> notes = {
      "no trace is named: tokens choose experts uniformly and independently, which real ones do not; the busiest "
      "rank's "
      "active experts are exact, its tokens are simulated, traffic is the expectation of both"};
  if (model.top_groups() < model.expert_groups()) {
    notes.push_back(absl::StrCat("the model's router takes experts from ", model.top_groups(), " of ",
                                 model.expert_groups(), " groups, which is left out: `epsim maxload --groups ",
                                 model.expert_groups(), " --group-topk ", model.top_groups(),
                                 " --allow-simulation` shows what it does to the busiest rank"));
  }
  if (GoesByLoad(as_asked.placement()) || as_asked.redundant_slots_per_rank() > 0) {
    notes.push_back("without a trace there is no load to place experts by: they lie in order, none redundant");
  }
  return notes;
}

absl::StatusOr<RunReport> EstimateStep(const ResolvedExperiment& resolved, const Experiment& as_asked,
                                       const RunOptions& options, ReportFolder* folder) {
  const Experiment& experiment = resolved.experiment();
  const ModelSpec& model = resolved.model();
  ASSIGN_OR_RETURN(const int64_t requests, RequestsPerRank(experiment.workload()));
  const LoadCase load_case{.batch = requests * experiment.ranks(),
                           .chips = static_cast<int>(experiment.ranks()),
                           .experts = static_cast<int>(model.experts()),
                           .top_k = static_cast<int>(model.top_k())};
  if (load_case.batch > kMostSampledPairs / load_case.top_k) {
    return absl::InvalidArgumentError(absl::StrCat("workload: ", load_case.batch,
                                                   " tokens in a step; an analytic estimate takes at most ",
                                                   kMostSampledPairs / load_case.top_k));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<ReplayRun> run,
                   ReplayRun::Create(resolved, folder, std::make_shared<WorkTimes>(options.new_clock)));
  if (folder != nullptr) RETURN_IF_ERROR(folder->Open());
  SamplingOptions sampling{
      .samples = Samples(load_case), .seed = experiment.seed(), .threads = options.threads, .stop = options.stop};
  ASSIGN_OR_RETURN(const UniformLoad load, ExpectUniformLoad(load_case, sampling));
  const int64_t context_tokens = experiment.analytic().context_tokens();
  ExpectedStep step(load, requests, context_tokens, run->shape().layers);
  RETURN_IF_ERROR(run->Prepare(InOrder(run->shape(), load_case)));
  RETURN_IF_ERROR(Replay(step, {run->simulation()},
                         {.threads = std::max(1, options.threads), .stop = options.stop, .progress = nullptr}));
  ReplayedSteps replayed;
  replayed.batches = step.description();
  replayed.counts_only = true;
  replayed.analytic = Assumptions(load, *run->parts().costs, context_tokens);
  replayed.notes = Notes(as_asked, model);
  return run->Report(replayed);
}

}  // namespace

absl::StatusOr<RunReport> AnalyticRun(const ResolvedExperiment& resolved, const RunOptions& options) {
  ResolvedExperiment in_order = resolved;
  in_order.manifest.mutable_experiment()->mutable_placement()->mutable_contiguous();
  in_order.manifest.mutable_experiment()->set_redundant_slots_per_rank(0);
  std::optional<ReportFolder> folder;
  if (!options.out.empty()) folder.emplace(options.out);
  absl::StatusOr<RunReport> report =
      EstimateStep(in_order, resolved.experiment(), options, folder.has_value() ? &*folder : nullptr);
  if (report.status().code() == absl::StatusCode::kInvalidArgument ||
      report.status().code() == absl::StatusCode::kFailedPrecondition) {
    const std::string& file = resolved.manifest.inputs(0).path();
    if (report.status().message().find(file) != absl::string_view::npos) return report;
    return absl::Status(report.status().code(), absl::StrCat(file, ": ", report.status().message()));
  }
  if (report.ok() && folder.has_value()) RETURN_IF_ERROR(folder->Commit());
  return report;
}

}  // namespace epsim
