#include "models/simulation/step_work.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

// Whether the ranks of some piece send as many rows as the fullest of them.
bool Pads(const BatchSplit& split, const StepPolicy& policy) {
  switch (policy.padding) {
    case ExternalSchedule::ALWAYS:
      return true;
    case ExternalSchedule::NEVER:
      return false;
    default:
      break;
  }
  if (!policy.gathers_rows) return false;
  return std::any_of(split.pieces.begin(), split.pieces.end(), [](const TokenRange& range) {
    bool empty = false, any = false;
    for (size_t rank = 0; rank < range.begin.size(); ++rank) {
      (range.begin[rank] == range.end[rank] ? empty : any) = true;
    }
    return empty && any;
  });
}

void AddTo(const std::vector<int32_t>& from, std::vector<int32_t>* to) {
  to->resize(from.size());
  for (size_t i = 0; i < from.size(); ++i) (*to)[i] += from[i];
}

}  // namespace

Duration AtSpeed(Duration time, double speed) {
  if (speed == 1) return time;
  return RoundUpWithinStep(static_cast<double>(time.count()) / speed);
}

int64_t StepWork::RowsOfPart(size_t part, size_t rank) const {
  const size_t ranks = split.attention[0].size(), all = split.pieces.size();
  int64_t sum = 0;
  for (size_t piece = part == 0 ? 0 : part - 1; piece < (part == 0 ? all : part); ++piece) {
    sum += rows[piece * ranks + rank];
  }
  return sum;
}

void PrepareStep(const StepBatch& batch, BatchSplit split, const StepPolicy& policy, int moe_layers, StepWork* work) {
  work->batch = &batch;
  work->split = std::move(split);
  work->padded = Pads(work->split, policy);
  work->own_rows.clear();
  work->rows.clear();
  for (const TokenRange& range : work->split.pieces) {
    const size_t first = work->rows.size(), ranks = range.begin.size();
    for (size_t rank = 0; rank < ranks; ++rank) work->rows.push_back(range.end[rank] - range.begin[rank]);
    const auto begin = work->rows.begin() + static_cast<std::ptrdiff_t>(first), end = work->rows.end();
    if (work->padded) std::fill(begin, end, *std::max_element(begin, end));
    work->own_rows.insert(work->own_rows.end(), begin, end);
    if (!policy.has_dispatch) {
      int32_t all = 0;
      for (auto rows = begin; rows != end; ++rows) all += *rows;
      std::fill(begin, end, all);
    }
  }
  const size_t pieces = static_cast<size_t>(moe_layers) * work->split.pieces.size();
  work->routed.resize(pieces);
  work->expert_costs.resize(pieces * batch.attention.size());
  work->routing_overhead.clear();
  work->quantize_costs.resize(policy.quantizes_received ? work->expert_costs.size() : 0);
}

void CountLayer(const PlacedRouting& routing, const PlacementShape& shape, int layer, StepWork* work) {
  const size_t ranks = shape.ranks, pieces = work->split.pieces.size();
  for (size_t piece = 0; piece < pieces; ++piece) {
    RoutedLayer& routed = work->routed[static_cast<size_t>(layer) * pieces + piece];
    routing.Count(*work->batch, work->split.pieces[piece], Layer(layer), &routed);
    if (work->padded) routed.tokens.assign(&work->own_rows[piece * ranks], &work->own_rows[piece * ranks] + ranks);
  }
}

void CostLayer(const PlacedRouting& routing, const CostModel& costs, const ExpertCostScale* scale,
               const Cluster& cluster, const PlacementShape& shape, int layer, StepWork* work) {
  const size_t ranks = shape.ranks, pieces = work->split.pieces.size();
  std::vector<double> scale_of_slot;  // [slots]; empty: all 1.
  if (scale != nullptr) {
    scale_of_slot.resize(shape.slots);
    scale->Gather(Layer(layer), routing.placement().experts_of_slots(Layer(layer)), absl::MakeSpan(scale_of_slot));
  }
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t place = static_cast<size_t>(layer) * pieces + piece;
    const RoutedLayer& routed = work->routed[place];
    const absl::Span<const int32_t> tokens = routed.tokens_per_slot;
    const absl::Span<const double> scales = scale_of_slot;
    for (size_t rank = 0; rank < ranks; ++rank) {
      const double speed = cluster.gpu_speed(Rank(static_cast<int32_t>(rank)));
      const size_t i = place * ranks + rank;
      const size_t first = rank * shape.slots_per_rank(), count = shape.slots_per_rank();
      work->expert_costs[i] =
          costs.RoutedExperts(tokens.subspan(first, count), scales.empty() ? scales : scales.subspan(first, count));
      work->expert_costs[i].time = AtSpeed(work->expert_costs[i].time, speed);
      if (work->quantize_costs.empty()) continue;
      int64_t received = 0;
      for (size_t source = 0; source < ranks; ++source) received += routed.tokens_between[source * ranks + rank];
      work->quantize_costs[i] = costs.Quantize(received);
      work->quantize_costs[i].time = AtSpeed(work->quantize_costs[i].time, speed);
    }
  }
}

void AddUpPieces(const StepWork& work, int layer, RoutedLayer* whole) {
  *whole = RoutedLayer{};
  for (int piece = 0; piece < work.pieces(); ++piece) {
    const RoutedLayer& routed = work.routed[static_cast<size_t>(layer) * work.pieces() + piece];
    AddTo(routed.tokens_per_slot, &whole->tokens_per_slot);
    AddTo(routed.tokens_between, &whole->tokens_between);
    AddTo(routed.pairs_between, &whole->pairs_between);
    AddTo(routed.tokens_to_node, &whole->tokens_to_node);
    whole->pairs += routed.pairs;
    const TokenRange& range = work.split.pieces[piece];
    whole->tokens.resize(range.begin.size());
    for (size_t rank = 0; rank < range.begin.size(); ++rank) whole->tokens[rank] += range.end[rank] - range.begin[rank];
  }
}

}  // namespace epsim
