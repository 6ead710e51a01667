#include "experiments/run.h"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "engine/whole_file.h"
#include "experiments/assembly.h"
#include "experiments/steps_csv.h"
#include "experiments/summary.h"
#include "experiments/timeline.h"
#include "models/costs/cost_view.h"
#include "models/simulation/simulation.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

// The report's files, all of which appear or none.
class ReportFolder {
 public:
  explicit ReportFolder(std::string path) : path_(std::move(path)) {}
  ~ReportFolder() {
    if (!made_ || complete_) return;
    files_.clear();  // Removes the temporary files before their folder.
    std::error_code error;
    fs::remove(path_, error);  // Only if empty.
  }

  absl::Status Open() {
    std::error_code error;
    made_ = fs::create_directories(path_, error);
    if (error) return absl::UnavailableError(absl::StrCat(path_, ": cannot make the folder: ", error.message()));
    return absl::OkStatus();
  }
  absl::StatusOr<WholeFile*> Create(const char* name) {
    ASSIGN_OR_RETURN(auto file, WholeFile::Create((fs::path(path_) / name).string()));
    files_.push_back(std::move(file));
    return files_.back().get();
  }
  absl::Status Commit() {
    for (const auto& file : files_) RETURN_IF_ERROR(file->Commit());
    complete_ = true;
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  bool made_ = false, complete_ = false;
  std::vector<std::unique_ptr<WholeFile>> files_;
};

// Adds up the tokens of every slot over the run, for the balancedness of the whole.
class AggregateLoad : public Observer {
 public:
  explicit AggregateLoad(const PlacementShape& shape)
      : shape_(shape), tokens_(static_cast<size_t>(shape.layers) * shape.ranks) {}

  void OnStage(const StageRecord&) override {}
  void OnStepEnd(const StepRecord& step) override {
    for (int layer = 0; layer < shape_.layers; ++layer) {
      const std::vector<int32_t>& slots = step.layers[layer].tokens_per_slot;
      for (size_t slot = 0; slot < slots.size(); ++slot) {
        tokens_[static_cast<size_t>(layer) * shape_.ranks + slot / shape_.slots_per_rank()] += slots[slot];
      }
    }
  }
  double balancedness() const {
    double sum = 0;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      sum +=
          Balancedness(absl::MakeConstSpan(tokens_).subspan(static_cast<size_t>(layer) * shape_.ranks, shape_.ranks));
    }
    return sum / shape_.layers;
  }

 private:
  const PlacementShape shape_;
  std::vector<int64_t> tokens_;  // [layers, ranks]
};

double PlanningFraction(const PlanningConfig& planning) {
  return planning.has_hindsight() ? planning.hindsight().fraction() : planning.past().fraction();
}

// Leaves out `steps` steps.
absl::Status Skip(StepSource& source, int64_t steps, const StopToken& stop) {
  for (int64_t i = 0; i < steps; ++i) {
    RETURN_IF_ERROR(stop.Check());
    RETURN_IF_ERROR(source.Next(SimTime{}).status());
  }
  return absl::OkStatus();
}

}  // namespace

std::string PlacementName(const Experiment& experiment) {
  const auto* oneof = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  const PlacementPolicyConfig& config = experiment.placement();
  const auto* field = config.GetReflection()->GetOneofFieldDescriptor(config, oneof);
  return field == nullptr ? "none" : field->name();
}

absl::StatusOr<RunReport> Run(const ResolvedExperiment& resolved, const RunOptions& options) {
  const Experiment& experiment = resolved.experiment();
  const ModelSpec& model = resolved.model();
  if (resolved.trace_path.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(resolved.manifest.inputs(0).path(), ": trace: none named; give --trace FILE"));
  }

  // Everything is checked before anything runs or is written.
  std::error_code no_folder;
  const std::string scratch = options.out.empty() ? fs::temp_directory_path(no_folder).string() : options.out;
  ASSIGN_OR_RETURN(const std::unique_ptr<Assembly> parts, Assemble(resolved));
  const PlacementShape& shape = parts->shape;
  {
    // Opened once without expanding it, so that a trace that does not fit costs nothing.
    ASSIGN_OR_RETURN(const auto header, TraceReader::Open(resolved.trace_path));
    RETURN_IF_ERROR(CheckTraceFitsModel(*header, model));
  }
  ReportFolder folder(options.out);
  if (!options.out.empty()) RETURN_IF_ERROR(folder.Open());
  ASSIGN_OR_RETURN(const auto trace, TraceReader::OpenRaw(resolved.trace_path, scratch, options.stop));
  const auto new_source = [&] {
    return NewStepSource(experiment.workload(), *trace, shape.ranks, experiment.seed(), options.stop);
  };
  ASSIGN_OR_RETURN(auto source, new_source());

  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  SimulationOptions simulation{.threads = options.threads > 0 ? options.threads : cores, .stop = options.stop};

  // The plan, on steps that will not be scored (or, marked, on those that will).
  const int64_t steps = source->total_steps().value_or(0);
  const int64_t planning_steps =
      static_cast<int64_t>(std::ceil(PlanningFraction(experiment.planning()) * static_cast<double>(steps) - 1e-9));
  const bool hindsight = experiment.planning().has_hindsight();
  if (steps - planning_steps <= 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(resolved.trace_path, ": ", steps, " steps leave none to score (", source->description(), ")"));
  }
  const int max_rows = static_cast<int>(experiment.planning().max_rows());
  RecordedLoad load;
  if (hindsight) {
    ASSIGN_OR_RETURN(const auto scored, new_source());
    RETURN_IF_ERROR(Skip(*scored, planning_steps, options.stop));
    ASSIGN_OR_RETURN(load,
                     RecordLoad(*scored, steps - planning_steps, shape.layers, shape.experts, max_rows, simulation));
    RETURN_IF_ERROR(Skip(*source, planning_steps, options.stop));
  } else {
    ASSIGN_OR_RETURN(load, RecordLoad(*source, planning_steps, shape.layers, shape.experts, max_rows, simulation));
  }
  const ModelCostView cost_view(*parts->costs);
  RandomStream placement_random(experiment.seed(), "placement");
  const Placement placement = parts->placement_policy->Place(
      {.window = load.window, .previous = nullptr, .cost = &cost_view, .random = &placement_random});
  RandomStream replica_random(experiment.seed(), "replica_choice");
  const ReplicaTable table = parts->replica_choice->Choose(placement, &replica_random);
  const std::unique_ptr<TokenRouting> routing = NewTokenRouting(shape, table);

  // The replay.
  Summary summary(shape.ranks);
  AggregateLoad aggregate(shape);
  std::optional<StepsCsv> steps_csv;
  std::optional<Timeline> timeline;
  if (!options.out.empty()) {
    ASSIGN_OR_RETURN(WholeFile * csv_file, folder.Create("steps.csv"));
    steps_csv.emplace(csv_file);
    ASSIGN_OR_RETURN(WholeFile * timeline_file, folder.Create("timeline.json"));
    timeline.emplace(timeline_file, parts->cluster, static_cast<int>(experiment.output().timeline_steps()));
  }
  StepMeter meter(parts->cluster, *parts->network, static_cast<int>(model.layers()), [&](const StepFacts& facts) {
    summary.Add(facts);
    if (steps_csv.has_value()) steps_csv->Add(facts);
  });
  ForwardContext context{.model = &model,
                         .cluster = &parts->cluster,
                         .costs = parts->costs.get(),
                         .communication = parts->communication.get(),
                         .schedule = experiment.schedule(),
                         .network = parts->network.get(),
                         .queue = &parts->queue,
                         .observers = {&meter, &aggregate}};
  if (timeline.has_value()) context.observers.push_back(&*timeline);
  {
    Progress progress(options.progress_label, steps - planning_steps);
    simulation.progress = &progress;
    RETURN_IF_ERROR(Simulate(context, shape, *routing, *source, simulation));
  }
  if (timeline.has_value()) timeline->Close();

  RunFacts facts{.placement = PlacementName(experiment),
                 .hindsight = hindsight,
                 .model = model.name(),
                 .platform = experiment.platform(),
                 .ranks = shape.ranks,
                 .nodes = shape.nodes,
                 .slots = shape.slots,
                 .experts = shape.experts,
                 .planning_steps = hindsight ? 0 : load.steps,
                 .trace_hash = trace->hash(),
                 .trace_synthetic = trace->header().synthetic(),
                 .batches = source->description(),
                 .resampled = source->resampled(),
                 .counts_only = trace->header().granularity() == COUNTS,
                 .trace_tokens = trace->index().tokens(),
                 .missing_ids = trace->index().missing_ids(),
                 .aggregate_balancedness = aggregate.balancedness(),
                 .notes = {}};
  if (load.steps == 0) facts.notes.push_back("planned without having seen any load");
  if (hindsight) facts.notes.push_back("hindsight: planned on the steps that are scored; a bound, not a policy");
  if (!facts.trace_synthetic.empty()) facts.notes.push_back("synthetic trace: " + facts.trace_synthetic);
  if (facts.resampled) facts.notes.push_back("requests were resampled: the trace has too few for this many ranks");
  if (facts.counts_only) {
    facts.notes.push_back(
        "the trace has counts only: traffic is its expectation if tokens chose experts independently");
  }
  if (facts.missing_ids > 0) facts.notes.push_back(absl::StrCat(facts.missing_ids, " ids were not captured"));
  RunReport report{.summary = summary.Json(facts), .step_time_us = summary.step_time_us()};

  if (!options.out.empty()) {
    ASSIGN_OR_RETURN(WholeFile * summary_file, folder.Create("summary.json"));
    summary_file->Write(report.summary.dump(2) + "\n");
    Manifest manifest = resolved.manifest;
    Manifest::Input* input = manifest.add_inputs();
    input->set_path(resolved.trace_path);
    input->set_xxh3(trace->hash());
    ASSIGN_OR_RETURN(WholeFile * manifest_file, folder.Create("manifest.txtpb"));
    manifest_file->Write(PrintTextProto(manifest));
    RETURN_IF_ERROR(folder.Commit());
  }
  return report;
}

}  // namespace epsim
