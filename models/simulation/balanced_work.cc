#include "models/simulation/balanced_work.h"

#include <algorithm>
#include <limits>

#include "engine/check.h"

namespace epsim {
namespace {

// Sums over the ordered pairs of different ranks.
struct Between {
  int64_t near = 0, far = 0;
};

Between Sum(const std::vector<int32_t>& between, const PlacementShape& shape) {
  Between sum;
  for (int s = 0; s < shape.ranks; ++s) {
    for (int d = 0; d < shape.ranks; ++d) {
      if (s == d) continue;
      const bool near = shape.node_of(Rank(s)) == shape.node_of(Rank(d));
      (near ? sum.near : sum.far) += between[static_cast<size_t>(s) * shape.ranks + d];
    }
  }
  return sum;
}

Between Least(Between a, Between b) { return {std::min(a.near, b.near), std::min(a.far, b.far)}; }

// The mean of each kind of pair, rounded down; `own` on the diagonal.
void Spread(Between sum, int32_t own, const PlacementShape& shape, std::vector<int32_t>* between) {
  const int64_t of_node = shape.ranks / shape.nodes;
  const int64_t near_pairs = shape.ranks * (of_node - 1), far_pairs = shape.ranks * (shape.ranks - of_node);
  const auto near = static_cast<int32_t>(near_pairs == 0 ? 0 : sum.near / near_pairs);
  const auto far = static_cast<int32_t>(far_pairs == 0 ? 0 : sum.far / far_pairs);
  between->resize(static_cast<size_t>(shape.ranks) * shape.ranks);
  for (int s = 0; s < shape.ranks; ++s) {
    for (int d = 0; d < shape.ranks; ++d) {
      const bool same_node = shape.node_of(Rank(s)) == shape.node_of(Rank(d));
      (*between)[static_cast<size_t>(s) * shape.ranks + d] = s == d ? own : same_node ? near : far;
    }
  }
}

// Active experts and pairs, each expert counted as often as its scale.
struct ExpertWork {
  double active = 0, pairs = 0;
};

ExpertWork Count(const RoutedLayer& routed, const Placement& placement, Layer layer, const ExpertCostScale* scale) {
  const absl::Span<const LogicalExpert> experts = placement.experts_of_slots(layer);
  std::vector<int64_t> tokens(placement.shape().experts);
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    if (experts[slot] != kNoExpert) tokens[Index(experts[slot])] += routed.tokens_per_slot[slot];
  }
  ExpertWork work;
  for (size_t expert = 0; expert < tokens.size(); ++expert) {
    if (tokens[expert] == 0) continue;
    const double weight = scale == nullptr ? 1 : scale->of(layer)[expert];
    work.active += weight;
    work.pairs += weight * static_cast<double>(tokens[expert]);
  }
  return work;
}

}  // namespace

void BalanceLayer(absl::Span<const ComparedWork> compared, const CostModel& costs, const ExpertCostScale* scale,
                  const Cluster& cluster, const PlacementShape& shape, int layer, StepWork* work) {
  EPSIM_CHECK(!compared.empty());
  double speed = 0;
  for (int rank = 0; rank < shape.ranks; ++rank) speed += cluster.gpu_speed(Rank(rank)) / shape.ranks;
  const size_t ranks = shape.ranks, pieces = work->split.pieces.size();
  for (size_t piece = 0; piece < pieces; ++piece) {
    const size_t place = static_cast<size_t>(layer) * pieces + piece;
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    constexpr double kInfinity = std::numeric_limits<double>::infinity();
    Between tokens{kMost, kMost}, pairs{kMost, kMost};
    int64_t to_other_nodes = kMost, all_pairs = kMost;
    ExpertWork experts{kInfinity, kInfinity};
    bool has_pairs = false, has_nodes = false;
    for (const ComparedWork& other : compared) {
      EPSIM_CHECK(other.work->split.pieces.size() == pieces);
      const RoutedLayer& routed = other.work->routed[place];
      tokens = Least(tokens, Sum(routed.tokens_between, shape));
      all_pairs = std::min(all_pairs, routed.pairs);
      if (!routed.pairs_between.empty()) {
        has_pairs = true;
        pairs = Least(pairs, Sum(routed.pairs_between, shape));
      }
      if (!routed.tokens_to_node.empty()) {
        has_nodes = true;
        int64_t others = 0;
        for (int s = 0; s < shape.ranks; ++s) {
          for (int node = 0; node < shape.nodes; ++node) {
            if (Node(node) != shape.node_of(Rank(s))) others += routed.tokens_to_node[s * shape.nodes + node];
          }
        }
        to_other_nodes = std::min(to_other_nodes, others);
      }
      const ExpertWork counted = Count(routed, *other.placement, Layer{layer}, scale);
      experts.active = std::min(experts.active, counted.active);
      experts.pairs = std::min(experts.pairs, counted.pairs);
    }

    RoutedLayer& routed = work->routed[place];
    routed = RoutedLayer{};
    routed.pairs = all_pairs;
    routed.tokens_per_slot.assign(shape.slots, static_cast<int32_t>(all_pairs / shape.slots));
    const TokenRange& range = work->split.pieces[piece];
    for (size_t rank = 0; rank < ranks; ++rank) routed.tokens.push_back(range.end[rank] - range.begin[rank]);
    if (work->padded) routed.tokens.assign(&work->own_rows[piece * ranks], &work->own_rows[piece * ranks] + ranks);
    Spread(tokens, 0, shape, &routed.tokens_between);
    if (has_pairs) Spread(pairs, 0, shape, &routed.pairs_between);
    if (has_nodes) {
      const int64_t places = static_cast<int64_t>(shape.ranks) * (shape.nodes - 1);
      const auto mean = static_cast<int32_t>(places == 0 ? 0 : to_other_nodes / places);
      routed.tokens_to_node.assign(ranks * shape.nodes, mean);
      for (size_t rank = 0; rank < ranks; ++rank) {
        routed.tokens_to_node[rank * shape.nodes + Index(shape.node_of(Rank(static_cast<int32_t>(rank))))] = 0;
      }
    }

    Cost least = costs.LeastExperts(experts.active, experts.pairs, shape.ranks);
    least.time = AtSpeed(least.time, speed);
    const Cost quantize = costs.Quantize((tokens.near + tokens.far) / shape.ranks);
    for (size_t rank = 0; rank < ranks; ++rank) {
      work->expert_costs[place * ranks + rank] = least;
      if (!work->quantize_costs.empty()) {
        work->quantize_costs[place * ranks + rank] = {AtSpeed(quantize.time, speed), quantize.source};
      }
    }
  }
}

}  // namespace epsim
