#include "policies/placement/eplb_placement.h"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/balanced_packing.h"
#include "policies/placement/group_packing.h"
#include "policies/placement/winner_tree.h"

namespace epsim {
namespace {

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
    for (size_t group = 0; groups_ > nodes_ && group < groups_; ++group) {  // One a node: whatever they weigh.
      float sum = 0;
      for (size_t i = 0; i < group_size; ++i) sum += weight[group * group_size + i];
      weight_[group] = sum;
    }
    ListByNode(Pack(nodes_), group_size, &grouped_);

    for (size_t node = 0; node < nodes_; ++node) {
      // 2. Redundant slots to experts, within each node.
      const uint32_t* const expert = grouped_.data() + node * node_experts;
      weight_.resize(node_experts);
      for (size_t i = 0; i < node_experts; ++i) weight_[i] = weight[expert[i]];
      ReplicateExperts(node_slots);

      // 3. Replicas onto the ranks of the node, each with its share of its expert's load.
      weight_.swap(share_);
      const absl::Span<const size_t> place = Pack(ranks_ / nodes_);
      for (size_t i = 0; i < node_slots; ++i) {
        const size_t slot = node * node_slots + place[i];
        expert_of_slot[slot] = LogicalExpert(static_cast<int32_t>(expert[expert_of_replica_[i]]));
        replica_order[slot] = order_of_replica_[i];
      }
    }
  }

 private:
  // Places of the items of weight_ in `packs`; kept in order where there is one item a pack, as the reference does.
  absl::Span<const size_t> Pack(size_t packs) {
    if (weight_.size() != packs) return packing_.Pack(weight_, packs);
    in_order_.resize(packs);
    std::iota(in_order_.begin(), in_order_.end(), 0);
    return in_order_;
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
    for (size_t expert = 0; expert < experts; ++expert) tree_.Set(expert, HeaviestFirst(weight_[expert], expert));
    tree_.PlayAll();
    for (size_t replica = experts; replica < replicas; ++replica) {
      const size_t expert = PlayerOf(tree_.best());
      expert_of_replica_[replica] = expert;
      order_of_replica_[replica] = count_[expert]++;
      share_[expert] = weight_[expert] / static_cast<float>(count_[expert]);
      tree_.Replay(expert, HeaviestFirst(share_[expert], expert));
    }
    for (size_t replica = experts; replica < replicas; ++replica) share_[replica] = share_[expert_of_replica_[replica]];
  }

  const size_t experts_, slots_, ranks_, groups_, nodes_;
  std::vector<uint32_t> grouped_;  // [experts]
  std::vector<float> weight_;      // Of the items of the step at hand.
  std::vector<size_t> in_order_;   // [items]
  BalancedPacking packing_;
  std::vector<size_t> expert_of_replica_;  // [replicas of a node], an index into the node's experts
  std::vector<int32_t> order_of_replica_;  // [replicas of a node]
  std::vector<float> share_;               // [replicas of a node]
  std::vector<int32_t> count_;             // [experts of a node]
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
  return CheckGroupPacking("eplb", shape, mode);
}

void FillByEplb(absl::Span<const float> weight, const PlacementShape& shape, EplbPlacement::Mode mode,
                PlacementDraft* draft) {
  EPSIM_CHECK(CheckEplbShape(shape, mode).ok());
  const size_t experts = shape.experts;
  EPSIM_CHECK(weight.size() == static_cast<size_t>(shape.layers) * experts);
  std::vector<float> layer_weight(experts);
  const bool hierarchical = PacksGroups(shape, mode);
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
