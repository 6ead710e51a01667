#include "tests/experiments/witnessed_run.h"

#include <cstring>
#include <filesystem>
#include <utility>

#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "models/catalogue.h"
#include "models/routing/placed_routing.h"
#include "models/simulation/simulation.h"

namespace epsim {
namespace {

// Passes everything on to `network`.
class WitnessedNetwork : public Network {
 public:
  explicit WitnessedNetwork(Network* network) : network_(*network) {}

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override {
    exchanges.push_back(traffic.bytes);
    ways.push_back(traffic.way);
    return network_.Start(stream, traffic, release, std::move(listener));
  }
  void Revise(PhaseId phase, absl::Span<const SimTime> release) override { network_.Revise(phase, release); }
  absl::Span<const int64_t> bytes_on_link() const override { return network_.bytes_on_link(); }
  LinkClass limiting_class() const override { return network_.limiting_class(); }

  std::vector<std::vector<int64_t>> exchanges;
  std::vector<Way> ways;

 private:
  Network& network_;
};

// Keeps what it counts.  For one thread.
class WitnessedRouting : public PlacedRouting {
 public:
  using PlacedRouting::PlacedRouting;

  void Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const override {
    PlacedRouting::Count(batch, range, layer, routed);
    pieces.push_back({static_cast<int>(Index(layer)), range, *routed});
  }

  mutable std::vector<SeenPiece> pieces;
};

int32_t IdAt(const StepBatch& batch, int layer, size_t token, size_t k) {
  if (batch.valid_count != nullptr && k >= batch.valid_count[layer * static_cast<size_t>(batch.tokens) + token]) {
    return -1;
  }
  const std::byte* const id = batch.layer_ids(layer) + (token * batch.top_k + k) * batch.id_bytes;
  if (batch.id_bytes == 1) return static_cast<int32_t>(*id);
  uint16_t wide;
  std::memcpy(&wide, id, sizeof(wide));
  return wide;
}

class StepWitness : public Observer {
 public:
  StepWitness(WitnessedNetwork* network, WitnessedRouting* routing, std::vector<SeenStep>* steps)
      : network_(*network), routing_(*routing), steps_(*steps) {}

  void OnStage(const StageRecord& stage) override {
    step_.stages.push_back({stage.kind, stage.layer, stage.part, stage.chunk, stage.repeat,
                            std::vector<SimTime>(stage.start.begin(), stage.start.end()),
                            std::vector<SimTime>(stage.finish.begin(), stage.finish.end())});
  }

  void OnStepEnd(const StepRecord& step) override {
    const StepBatch& batch = *step.batch;
    step_.index = batch.index;
    step_.start = step.start;
    step_.finish = step.finish;
    step_.rank_begin = batch.rank_begin;
    step_.layers.assign(step.layers.begin(), step.layers.end());
    for (size_t token = 0; batch.ids != nullptr && token < static_cast<size_t>(batch.tokens); ++token) {
      std::vector<int32_t>& row = step_.rows.emplace_back();
      for (int layer = 0; layer < batch.layers; ++layer) {
        for (size_t k = 0; k < static_cast<size_t>(batch.top_k); ++k) row.push_back(IdAt(batch, layer, token, k));
      }
    }
    step_.exchanges = std::exchange(network_.exchanges, {});
    step_.ways = std::exchange(network_.ways, {});
    step_.pieces = std::exchange(routing_.pieces, {});
    step_.bytes_on_link.assign(network_.bytes_on_link().begin(), network_.bytes_on_link().end());
    steps_.push_back(std::exchange(step_, {}));
  }

 private:
  WitnessedNetwork& network_;
  WitnessedRouting& routing_;
  std::vector<SeenStep>& steps_;
  SeenStep step_;
};

}  // namespace

absl::StatusOr<WitnessedRun> Witness(const ResolvedExperiment& resolved) {
  const Experiment& experiment = resolved.experiment();
  WitnessedRun run;
  ASSIGN_OR_RETURN(run.parts, Assemble(resolved));
  Assembly& parts = *run.parts;
  ASSIGN_OR_RETURN(run.trace,
                   TraceReader::OpenRaw(resolved.trace_path, std::filesystem::temp_directory_path().string(), {}));
  const auto new_source = [&] {
    return NewStepSource(experiment.workload(), *run.trace, parts.shape.ranks, experiment.seed());
  };
  ASSIGN_OR_RETURN(const std::unique_ptr<StepSource> source, new_source());
  ASSIGN_OR_RETURN(const StepsCut cut, CutSteps(experiment.planning(), *source));
  const auto record = [&](StepSource& from, int64_t steps) {
    return RecordLoad(from, steps, parts.shape.layers, parts.shape.experts,
                      static_cast<int>(experiment.planning().max_rows()), {});
  };
  RecordedLoad seen;
  if (experiment.planning().has_hindsight()) {
    ASSIGN_OR_RETURN(const std::unique_ptr<StepSource> ahead, new_source());
    RETURN_IF_ERROR(SkipSteps(*ahead, cut.left_out, {}));
    ASSIGN_OR_RETURN(seen, record(*ahead, cut.scored));
    RETURN_IF_ERROR(SkipSteps(*source, cut.left_out, {}));
  } else {
    ASSIGN_OR_RETURN(seen, record(*source, cut.left_out));
  }
  ASSIGN_OR_RETURN(run.plan.placement, PlanPlacement(experiment, parts, seen));
  run.plan.left_out_steps = cut.left_out;
  run.plan.scored_steps = cut.scored;
  WitnessedRouting witnessed_routing(run.plan.placement, parts.replica_choice.get(), experiment.seed(),
                                     parts.communication->detail());
  run.table = witnessed_routing.table();
  WitnessedNetwork network(parts.network.get());
  StepWitness witness(&network, &witnessed_routing, &run.steps);
  const ForwardContext context{.model = &resolved.model(),
                               .cluster = &parts.cluster,
                               .costs = parts.costs.get(),
                               .expert_cost_scale = parts.expert_cost_scale.get(),
                               .communication = parts.communication.get(),
                               .schedule = experiment.schedule(),
                               .network = &network,
                               .queue = &parts.queue,
                               .observers = {&witness}};
  RandomStream random(experiment.seed(), "rebalance");
  Simulation simulation(context, &witnessed_routing,
                        {.config = experiment.rebalance(),
                         .policy = parts.placement_policy.get(),
                         .cost_view = parts.cost_view.get(),
                         .expert_bytes = ExpertBytes(resolved.model(), experiment.costs().precision().expert_weights()),
                         .copy_rate = parts.copy_rate,
                         .random = &random,
                         .elastic = experiment.elastic()});
  RETURN_IF_ERROR(Replay(*source, {&simulation}, {}));
  return run;
}

}  // namespace epsim
