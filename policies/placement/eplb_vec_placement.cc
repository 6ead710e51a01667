#include "policies/placement/eplb_vec_placement.h"

#include <algorithm>
#include <bit>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "policies/placement/balanced_packing.h"
#include "policies/placement/group_packing.h"
#include "policies/placement/placement_draft.h"
#include "policies/placement/winner_tree.h"

namespace epsim {
namespace {

// The weight of a HeaviestFirst key; 0 of WinnerTree::kOut.
float WeightOf(uint64_t key) { return std::bit_cast<float>(~static_cast<uint32_t>(key >> 32)); }

// Balances one layer after another; holds the scratch memory.
class Balancer {
 public:
  // `groups` and `nodes` are 1 for the global policy.
  Balancer(const PlacementShape& shape, int groups, int nodes)
      : experts_(shape.experts), slots_(shape.slots), ranks_(shape.ranks), groups_(groups), nodes_(nodes) {}

  // -> `expert_of_slot` [slots], `replica_order` [slots] (0: the original).
  void Balance(const LoadWindow& window, Layer layer, LogicalExpert* expert_of_slot, int32_t* replica_order) {
    const size_t node_experts = experts_ / nodes_, node_slots = slots_ / nodes_;
    TakeLoads(window, layer);
    for (size_t node = 0; node < nodes_; ++node) {
      const size_t first = node * node_experts;
      Replicate(first, node_experts, node_slots);
      PackInASnake(first, ranks_ / nodes_);
      for (size_t replica = 0; replica < node_slots; ++replica) {
        const size_t slot = node * node_slots + place_[replica];
        expert_of_slot[slot] = LogicalExpert(static_cast<int32_t>(listed_[first + expert_of_replica_[replica]]));
        replica_order[slot] = order_of_replica_[replica];
      }
    }
  }

 private:
  // Lists the experts node by node, and sets rows_, tokens_ and total_ in that order.
  void TakeLoads(const LoadWindow& window, Layer layer) {
    rows_ = window.rows;
    std::vector<double>& sum = sum_;
    sum.assign(experts_, 0);
    for (size_t row = 0; row < rows_; ++row) {
      const absl::Span<const double> loads = window.of(static_cast<int>(row), layer);
      for (size_t expert = 0; expert < experts_; ++expert) sum[expert] += loads[expert];
    }
    const size_t group_size = experts_ / groups_;
    group_weight_.assign(groups_, 0);
    for (size_t expert = 0; expert < group_size * groups_; ++expert) {
      group_weight_[expert / group_size] += static_cast<float>(sum[expert]);
    }
    ListByNode(packing_.Pack(group_weight_, nodes_), group_size, &listed_);

    total_.resize(experts_);
    tokens_.resize(rows_ * experts_);
    for (size_t e = 0; e < experts_; ++e) total_[e] = static_cast<float>(sum[listed_[e]]);
    for (size_t row = 0; row < rows_; ++row) {
      const absl::Span<const double> loads = window.of(static_cast<int>(row), layer);
      for (size_t e = 0; e < experts_; ++e) tokens_[row * experts_ + e] = static_cast<float>(loads[listed_[e]]) + 0.0f;
    }
  }

  float Score(size_t row, size_t e, int32_t replicas) const {
    return (tokens_[row * experts_ + e] + static_cast<float>(e) * 1e-4f) / static_cast<float>(replicas);
  }

  // One replica of each of the `experts` listed from `first` on, then more until there are `replicas`.
  // expert_of_replica_ counts from `first`.
  void Replicate(size_t first, size_t experts, size_t replicas) {
    expert_of_replica_.resize(replicas);
    std::iota(expert_of_replica_.begin(), expert_of_replica_.begin() + static_cast<std::ptrdiff_t>(experts), 0);
    order_of_replica_.assign(replicas, 0);
    count_.assign(experts, 1);
    if (replicas == experts) return;

    scores_.resize(rows_);
    for (size_t row = 0; row < rows_; ++row) {
      scores_[row].Reset(experts);
      for (size_t e = 0; e < experts; ++e) scores_[row].Set(e, HeaviestFirst(Score(row, first + e, 1), e));
      scores_[row].PlayAll();
    }
    for (size_t replica = experts; replica < replicas; ++replica) {
      const size_t e = MostRelieving(first, experts);
      expert_of_replica_[replica] = e;
      order_of_replica_[replica] = count_[e]++;
      for (size_t row = 0; row < rows_; ++row) {
        scores_[row].Replay(e, HeaviestFirst(Score(row, first + e, count_[e]), e));
      }
    }
  }

  // The expert with the smallest sum over rows of the peak, if it got one replica more.  Only experts that are the peak
  // of some row change the sum; of the others the first stands for all.
  size_t MostRelieving(size_t first, size_t experts) {
    peak_.resize(rows_);
    relieved_.resize(rows_);
    at_peak_.resize(rows_);
    is_candidate_.assign(experts, false);
    float best_sum = 0;
    for (size_t row = 0; row < rows_; ++row) {
      const uint64_t best = scores_[row].best();
      const size_t e = PlayerOf(best);
      at_peak_[row] = e;
      peak_[row] = WeightOf(best);
      const float share = tokens_[row * experts_ + first + e] / static_cast<float>(count_[e] + 1);
      relieved_[row] = std::max(WeightOf(scores_[row].second()), share);
      is_candidate_[e] = true;
      best_sum += peak_[row];
    }
    size_t best = std::find(is_candidate_.begin(), is_candidate_.end(), false) - is_candidate_.begin();
    for (size_t e = 0; e < experts; ++e) {
      if (!is_candidate_[e]) continue;
      float sum = 0;
      for (size_t row = 0; row < rows_; ++row) sum += at_peak_[row] == e ? relieved_[row] : peak_[row];
      if (best < experts && (sum > best_sum || (sum == best_sum && e > best))) continue;
      best = e;
      best_sum = sum;
    }
    return best;
  }

  // place_[replica]: its slot, counted from the first of the node.
  void PackInASnake(size_t first, size_t ranks) {
    const size_t replicas = expert_of_replica_.size(), slots_per_rank = replicas / ranks;
    place_.resize(replicas);
    if (slots_per_rank == 1) {
      std::iota(place_.begin(), place_.end(), 0);
      return;
    }
    keys_.resize(replicas);
    for (size_t replica = 0; replica < replicas; ++replica) {
      const size_t e = expert_of_replica_[replica];
      keys_[replica] = HeaviestFirst(total_[first + e] / static_cast<float>(count_[e]), replica);
    }
    std::sort(keys_.begin(), keys_.end());
    for (size_t i = 0; i < replicas; ++i) {
      const size_t row = i / ranks, column = row % 2 == 0 ? i % ranks : ranks - 1 - i % ranks;
      place_[PlayerOf(keys_[i])] = column * slots_per_rank + row;
    }
  }

  const size_t experts_, slots_, ranks_, groups_, nodes_;
  size_t rows_ = 0;
  BalancedPacking packing_;
  std::vector<double> sum_;                // [experts]
  std::vector<float> group_weight_;        // [groups]
  std::vector<uint32_t> listed_;           // [experts], node by node.  Below, e is a place in this list.
  std::vector<float> total_;               // [experts]
  std::vector<float> tokens_;              // [rows, experts]
  std::vector<WinnerTree> scores_;         // [rows]
  std::vector<float> peak_, relieved_;     // [rows]
  std::vector<size_t> at_peak_;            // [rows]
  std::vector<char> is_candidate_;         // [experts of a node]
  std::vector<int32_t> count_;             // [experts of a node]
  std::vector<size_t> expert_of_replica_;  // [slots of a node]
  std::vector<int32_t> order_of_replica_;  // [slots of a node]
  std::vector<uint64_t> keys_;             // [slots of a node]
  std::vector<size_t> place_;              // [slots of a node]
};

class EplbVecPlacementPolicy : public PlacementPolicy {
 public:
  EplbVecPlacementPolicy(const PlacementShape& shape, EplbPlacement::Mode mode)
      : shape_(shape), packs_groups_(PacksGroups(shape, mode)) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    PlacementDraft draft(shape_, request);
    Balancer balancer(shape_, packs_groups_ ? shape_.expert_groups : 1, packs_groups_ ? shape_.nodes : 1);
    for (Layer layer : draft.layers()) {
      balancer.Balance(request.window, layer, draft.experts_of_slots(layer).data(), draft.replica_order(layer).data());
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
  const bool packs_groups_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewEplbVecPlacement(const EplbVecPlacement& config,
                                                                     const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckGroupPacking("eplb_vec", shape, config.mode()));
  return std::make_unique<EplbVecPlacementPolicy>(shape, config.mode());
}

}  // namespace epsim
