#include "policies/placement/eplb_placement.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/winner_tree.h"

namespace epsim {
namespace {

// The reference's choice: hierarchical where the nodes divide the groups.
bool Hierarchical(const PlacementShape& shape, EplbPlacement::Mode mode) {
  if (mode == EplbPlacement::AUTO) return shape.expert_groups % shape.nodes == 0;
  return mode == EplbPlacement::HIERARCHICAL;
}

// Weights are >= 0, so the bits of a float32 order as its value.  The index below them breaks ties: lowest first.
uint64_t Ascending(float weight, size_t index) { return uint64_t{std::bit_cast<uint32_t>(weight)} << 32 | index; }
uint64_t Descending(float weight, size_t index) { return uint64_t{~std::bit_cast<uint32_t>(weight)} << 32 | index; }
size_t IndexOf(uint64_t key) { return static_cast<uint32_t>(key); }

// Sorts keys by their high 32 bits, equal ones as they stand: least significant digit first, a byte at a time.
void SortByWeight(std::vector<uint64_t>& keys, std::vector<uint64_t>& scratch) {
  std::array<std::array<uint32_t, 256>, 4> count{};
  for (uint64_t key : keys) {
    for (int digit = 0; digit < 4; ++digit) ++count[digit][key >> (32 + 8 * digit) & 255];
  }
  scratch.resize(keys.size());
  for (int digit = 0; digit < 4; ++digit) {
    const int shift = 32 + 8 * digit;
    if (count[digit][keys[0] >> shift & 255] == keys.size()) continue;  // All equal here.
    uint32_t begin = 0;
    for (uint32_t& place : count[digit]) place = std::exchange(begin, begin + place);
    for (uint64_t key : keys) scratch[count[digit][key >> shift & 255]++] = key;
    keys.swap(scratch);
  }
}

// The three steps of EPLB for one layer after another; holds their scratch memory.
class Balancer {
 public:
  // `groups` and `nodes` are 1 for the global policy.
  Balancer(const PlacementShape& shape, int groups, int nodes)
      : experts_(shape.experts), slots_(shape.slots), ranks_(shape.ranks), groups_(groups), nodes_(nodes) {}

  // `weight` [experts] -> `expert_of_slot` [slots], `replica_order` [slots] (0: the original).
  void RebalanceHierarchical(const float* weight, LogicalExpert* expert_of_slot, int32_t* replica_order) {
    const size_t group_size = experts_ / groups_, node_experts = experts_ / nodes_, node_slots = slots_ / nodes_;

    // 1. Groups onto nodes.  grouped_[i]: the expert at place i when experts are listed by node, then by group.
    weight_.assign(groups_, 0);
    for (size_t group = 0; group < groups_; ++group) {
      for (size_t i = 0; i < group_size; ++i) weight_[group] += weight[group * group_size + i];
    }
    BalancedPacking(nodes_);
    grouped_.resize(experts_);
    for (size_t group = 0; group < groups_; ++group) {
      for (size_t i = 0; i < group_size; ++i) grouped_[place_[group] * group_size + i] = group * group_size + i;
    }

    for (size_t node = 0; node < nodes_; ++node) {
      // 2. Redundant slots to experts, within each node.
      const uint32_t* const expert = grouped_.data() + node * node_experts;
      weight_.resize(node_experts);
      for (size_t i = 0; i < node_experts; ++i) weight_[i] = weight[expert[i]];
      ReplicateExperts(node_slots);

      // 3. Replicas onto the ranks of the node, each with its share of its expert's load.
      weight_.swap(share_);
      BalancedPacking(ranks_ / nodes_);
      for (size_t i = 0; i < node_slots; ++i) {
        const size_t slot = node * node_slots + place_[i];
        expert_of_slot[slot] = LogicalExpert(static_cast<int32_t>(expert[expert_of_replica_[i]]));
        replica_order[slot] = order_of_replica_[i];
      }
    }
  }

 private:
  // Items of weight_ into `packs` of equal numbers: the heaviest item first, onto the lightest pack that is not full.
  // place_[item] = pack * items per pack + number of items already there.
  void BalancedPacking(size_t packs) {
    const size_t items = weight_.size(), capacity = items / packs;
    place_.resize(items);
    if (capacity == 1) {  // As the reference: kept in order, not sorted.
      for (size_t item = 0; item < items; ++item) place_[item] = item;
      return;
    }
    keys_.resize(items);
    for (size_t item = 0; item < items; ++item) keys_[item] = Descending(weight_[item], item);
    SortByWeight(keys_, sort_scratch_);

    filled_.assign(packs, 0);
    tree_.Reset(packs);
    for (size_t pack = 0; pack < packs; ++pack) tree_.Set(pack, Ascending(0, pack));
    tree_.PlayAll();
    for (uint64_t key : keys_) {
      const size_t item = IndexOf(key), pack = IndexOf(tree_.best());
      const float load = std::bit_cast<float>(static_cast<uint32_t>(tree_.best() >> 32)) + weight_[item];
      place_[item] = pack * capacity + filled_[pack];
      tree_.Replay(pack, ++filled_[pack] == capacity ? WinnerTree::kOut : Ascending(load, pack));
    }
  }

  // One replica of every expert of weight_, then one at a time of the expert with the most load per replica, until
  // there are `replicas`.  expert_of_replica_, order_of_replica_ and share_ (load per replica): [replicas].
  void ReplicateExperts(size_t replicas) {
    const size_t experts = weight_.size();
    expert_of_replica_.resize(replicas);
    order_of_replica_.assign(replicas, 0);
    share_.resize(replicas);
    count_.assign(experts, 1);
    for (size_t expert = 0; expert < experts; ++expert) {
      expert_of_replica_[expert] = expert;
      share_[expert] = weight_[expert];
    }
    if (replicas == experts) return;

    tree_.Reset(experts);
    for (size_t expert = 0; expert < experts; ++expert) tree_.Set(expert, Descending(weight_[expert], expert));
    tree_.PlayAll();
    for (size_t replica = experts; replica < replicas; ++replica) {
      const size_t expert = IndexOf(tree_.best());
      expert_of_replica_[replica] = expert;
      order_of_replica_[replica] = count_[expert]++;
      share_[expert] = weight_[expert] / static_cast<float>(count_[expert]);
      tree_.Replay(expert, Descending(share_[expert], expert));
    }
    for (size_t replica = experts; replica < replicas; ++replica) share_[replica] = share_[expert_of_replica_[replica]];
  }

  const size_t experts_, slots_, ranks_, groups_, nodes_;
  std::vector<uint32_t> grouped_;              // [experts]
  std::vector<float> weight_;                  // Of the items of the step at hand.
  std::vector<size_t> place_;                  // [items]
  std::vector<size_t> filled_;                 // [packs]
  std::vector<uint64_t> keys_, sort_scratch_;  // [items]
  std::vector<size_t> expert_of_replica_;      // [replicas of a node], an index into the node's experts
  std::vector<int32_t> order_of_replica_;      // [replicas of a node]
  std::vector<float> share_;                   // [replicas of a node]
  std::vector<int32_t> count_;                 // [experts of a node]
  WinnerTree tree_;
};

class EplbPlacementPolicy : public PlacementPolicy {
 public:
  EplbPlacementPolicy(const PlacementShape& shape, EplbPlacement::Mode mode) : shape_(shape), mode_(mode) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const std::vector<double> total = request.window.Total();
    const std::vector<float> weight(total.begin(), total.end());
    PlacementDraft draft(shape_, request);
    FillByEplb(weight, shape_, mode_, &draft);
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
  const EplbPlacement::Mode mode_;
};

}  // namespace

absl::Status CheckEplbShape(const PlacementShape& shape, EplbPlacement::Mode mode) {
  if (!EplbPlacement::Mode_IsValid(mode)) {
    return absl::InvalidArgumentError(absl::StrCat("eplb: mode: ", mode, " is not AUTO, GLOBAL or HIERARCHICAL"));
  }
  if (!Hierarchical(shape, mode)) return absl::OkStatus();
  if (shape.expert_groups % shape.nodes != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("eplb: mode: HIERARCHICAL needs nodes that divide the expert groups, not ", shape.nodes,
                     " nodes and ", shape.expert_groups, " groups; AUTO or GLOBAL would fit"));
  }
  if (shape.experts % shape.expert_groups != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("eplb: expert_groups: ", shape.expert_groups, " do not divide ", shape.experts, " experts; ",
                     mode == EplbPlacement::AUTO ? "1" : "a divisor", " or mode GLOBAL would fit"));
  }
  if (shape.ranks % shape.nodes != 0) {
    return absl::InvalidArgumentError(absl::StrCat(
        "eplb: ranks: ", shape.ranks, " are not divisible by ", shape.nodes, " nodes; ",
        shape.ranks / shape.nodes > 0 ? absl::StrCat(shape.ranks / shape.nodes * shape.nodes, " or ") : std::string(),
        (shape.ranks / shape.nodes + 1) * shape.nodes, " ranks, or mode GLOBAL, would fit"));
  }
  return absl::OkStatus();
}

void FillByEplb(absl::Span<const float> weight, const PlacementShape& shape, EplbPlacement::Mode mode,
                PlacementDraft* draft) {
  EPSIM_CHECK(CheckEplbShape(shape, mode).ok());
  const size_t experts = shape.experts;
  EPSIM_CHECK(weight.size() == static_cast<size_t>(shape.layers) * experts);
  std::vector<float> layer_weight(experts);
  const bool hierarchical = Hierarchical(shape, mode);
  Balancer balancer(shape, hierarchical ? shape.expert_groups : 1, hierarchical ? shape.nodes : 1);
  for (Layer layer : draft->layers()) {
    for (size_t expert = 0; expert < experts; ++expert) {
      const float load = weight[Index(layer) * experts + expert];
      EPSIM_CHECK(std::isfinite(load) && load >= 0);
      layer_weight[expert] = load + 0.0f;  // -0 becomes +0.
    }
    balancer.RebalanceHierarchical(layer_weight.data(), draft->experts_of_slots(layer).data(),
                                   draft->replica_order(layer).data());
  }
}

Placement Eplb(absl::Span<const float> weight, const PlacementShape& shape, EplbPlacement::Mode mode) {
  PlacementDraft draft(shape, {});
  FillByEplb(weight, shape, mode, &draft);
  return std::move(draft).Finish();
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewEplbPlacement(const EplbPlacement& config,
                                                                  const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckEplbShape(shape, config.mode()));
  return std::make_unique<EplbPlacementPolicy>(shape, config.mode());
}

}  // namespace epsim
