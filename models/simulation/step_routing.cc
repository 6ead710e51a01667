#include "models/simulation/step_routing.h"

#include <algorithm>

#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

Duration Busiest(absl::Span<const Duration> times) { return *std::max_element(times.begin(), times.end()); }

}  // namespace

absl::StatusOr<const StepBatch*> StepRouting::Route(const StepBatch& captured, BatchRouting::ForEach for_each) {
  ASSIGN_OR_RETURN(const StepBatch* const routed, routing_->Apply(captured, for_each));
  captured_ = &captured;
  layers_.clear();
  for (const RoutingDeparture& departure : routing_->departures()) layers_.push_back({.departure = departure});
  return routed;
}

void StepRouting::Charge(const Cluster& cluster, int layers, StepWork* work) {
  work->routing_overhead.clear();
  if (std::none_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer.departure.routed_anew; })) {
    return;
  }
  EPSIM_CHECK(layers_.size() == static_cast<size_t>(layers));
  const size_t parts = work->split.attention.size(), ranks = work->split.attention[0].size();
  std::vector<Duration> time(parts * ranks);  // [parts, ranks]
  Duration slowest{}, slowest_empty{};
  for (size_t rank = 0; rank < ranks; ++rank) {
    const double speed = cluster.gpu_speed(Rank(static_cast<int32_t>(rank)));
    Duration sum{}, sum_empty{};
    for (size_t part = 0; part < parts; ++part) {
      const int64_t rows = work->RowsOfPart(part, rank);
      time[part * ranks + rank] = AtSpeed(kernel_.Time(rows), speed);
      memory_ = std::max(memory_, kernel_.Memory(rows));
      if (parts > 1 && part == 0) continue;  // MoE layers run in halves.
      sum += time[part * ranks + rank];
      sum_empty += AtSpeed(kernel_.Time(0), speed);
    }
    slowest = std::max(slowest, sum);
    slowest_empty = std::max(slowest_empty, sum_empty);
  }
  work->routing_overhead.resize(static_cast<size_t>(layers) * time.size());
  for (size_t layer = 0; layer < layers_.size(); ++layer) {
    if (!layers_[layer].departure.routed_anew) continue;
    std::copy(time.begin(), time.end(), work->routing_overhead.begin() + static_cast<ptrdiff_t>(layer * time.size()));
    layers_[layer].overhead = slowest;
    layers_[layer].empty_overhead = slowest_empty;
  }
}

void StepRouting::Measure(const TokenRouting& routing, const CostModel& costs, const Cluster& cluster,
                          const PlacementShape& shape, const StepWork& work, int layer) {
  LayerRouting& measured = layers_[layer];
  if (!measured.departure.routed_anew) return;
  std::vector<Duration> captured(shape.ranks), routed(shape.ranks);
  RoutedLayer counts;
  for (int piece = 0; piece < work.pieces(); ++piece) {
    routing.Count(*captured_, work.split.pieces[piece], Layer(layer), &counts);
    const absl::Span<const int32_t> tokens = counts.tokens_per_slot;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      const Cost cost = costs.RoutedExperts(tokens.subspan(static_cast<size_t>(rank) * shape.slots_per_rank(),
                                                           static_cast<size_t>(shape.slots_per_rank())));
      captured[rank] += AtSpeed(cost.time, cluster.gpu_speed(Rank(rank)));
      routed[rank] += work.expert_costs[(static_cast<size_t>(layer) * work.pieces() + piece) * shape.ranks + rank].time;
    }
  }
  measured.captured_expert_time = Busiest(captured);
  measured.expert_time = Busiest(routed);
}

}  // namespace epsim
