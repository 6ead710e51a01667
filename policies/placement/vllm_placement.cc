#include "policies/placement/vllm_placement.h"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "policies/placement/balanced_packing.h"
#include "policies/placement/group_packing.h"
#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

class VllmPlacementPolicy : public PlacementPolicy {
 public:
  // `groups` and `nodes` as used: 1 for the global policy.
  VllmPlacementPolicy(const PlacementShape& shape, int groups, int nodes, bool keep_slots)
      : shape_(shape), groups_(groups), nodes_(nodes), keep_slots_(keep_slots) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const std::vector<double> total = request.window.Total();
    const bool keep_slots = keep_slots_ && request.previous != nullptr && request.previous->shape() == shape_;
    PlacementDraft draft(shape_, request);
    std::vector<float> weight(shape_.experts);
    for (Layer layer : draft.layers()) {
      const auto begin = total.begin() + static_cast<std::ptrdiff_t>(Index(layer)) * shape_.experts;
      std::transform(begin, begin + shape_.experts, weight.begin(), [](double w) { return static_cast<float>(w); });
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      Balance(weight, experts.data());
      if (keep_slots) {
        const absl::Span<const LogicalExpert> old = request.previous->experts_of_slots(layer);
        const size_t slots = shape_.slots_per_rank();
        for (size_t slot = 0; slot < experts.size(); slot += slots) {
          KeepSlots(old.subspan(slot, slots), experts.subspan(slot, slots));
        }
      }
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  // `weight` [experts] -> `expert_of_slot` [slots].
  void Balance(const std::vector<float>& weight, LogicalExpert* expert_of_slot) {
    const size_t group_size = weight.size() / groups_, node_experts = weight.size() / nodes_;
    const size_t node_slots = static_cast<size_t>(shape_.slots) / nodes_;
    weight_.assign(groups_, 0);
    for (size_t group = 0; group < groups_; ++group) {
      float sum = 0;
      for (size_t i = 0; i < group_size; ++i) sum += weight[group * group_size + i];
      weight_[group] = sum;
    }
    ListByNode(Pack(nodes_), group_size, &listed_);

    for (size_t node = 0; node < nodes_; ++node) {
      const uint32_t* const expert = listed_.data() + node * node_experts;
      share_.resize(node_experts);
      for (size_t i = 0; i < node_experts; ++i) share_[i] = weight[expert[i]];
      // A replica of every expert, then of the one with the most load per replica.
      replica_.resize(node_experts);
      std::iota(replica_.begin(), replica_.end(), 0);
      count_.assign(node_experts, 1);
      while (replica_.size() < node_slots) {
        const size_t i = std::max_element(share_.begin(), share_.end()) - share_.begin();  // The first of equal ones.
        share_[i] = static_cast<double>(weight[expert[i]]) / ++count_[i];
        replica_.push_back(i);
      }
      weight_.resize(node_slots);
      for (size_t i = 0; i < node_slots; ++i) weight_[i] = share_[replica_[i]];
      const absl::Span<const size_t> place = Pack(shape_.ranks / nodes_);
      for (size_t i = 0; i < node_slots; ++i) {
        expert_of_slot[node * node_slots + place[i]] = LogicalExpert(static_cast<int32_t>(expert[replica_[i]]));
      }
    }
  }

  // Places of the items of weight_ in `packs`; kept in order where there is one item a pack, as the reference does.
  absl::Span<const size_t> Pack(size_t packs) {
    if (weight_.size() != packs) return packing_.Pack(weight_, packs);
    in_order_.resize(packs);
    std::iota(in_order_.begin(), in_order_.end(), 0);
    return in_order_;
  }

  const PlacementShape shape_;
  const size_t groups_, nodes_;
  const bool keep_slots_;
  BalancedPacking packing_;
  std::vector<uint32_t> listed_;  // [experts], node by node
  std::vector<double> weight_;    // Of the items to pack.
  std::vector<double> share_;     // Load per replica.  [experts of a node]
  std::vector<int32_t> count_;    // [experts of a node]
  std::vector<size_t> replica_;   // [slots of a node], an index into the node's experts
  std::vector<size_t> in_order_;  // [items]
};

}  // namespace

void KeepSlots(absl::Span<const LogicalExpert> old, absl::Span<LogicalExpert> placed) {
  std::vector<LogicalExpert> incoming(placed.begin(), placed.end());
  std::vector<bool> kept(old.size(), false);
  for (size_t slot = 0; slot < old.size(); ++slot) {
    const auto match = std::find(incoming.begin(), incoming.end(), old[slot]);
    if (match == incoming.end()) continue;
    placed[slot] = *match;
    incoming.erase(match);
    kept[slot] = true;
  }
  auto next = incoming.begin();
  for (size_t slot = 0; slot < old.size(); ++slot) {
    if (!kept[slot]) placed[slot] = *next++;
  }
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewVllmPlacement(const VllmPlacement& config,
                                                                  const PlacementShape& shape) {
  const int nodes = shape.ranks % shape.nodes == 0 ? shape.nodes : 1;
  const bool packs_groups = shape.expert_groups % nodes == 0;
  if (packs_groups && shape.experts % shape.expert_groups != 0) {
    return absl::InvalidArgumentError(absl::StrCat("vllm: expert_groups: ", shape.expert_groups, " do not divide ",
                                                   shape.experts, " experts; 1 would fit"));
  }
  return std::make_unique<VllmPlacementPolicy>(
      shape, packs_groups ? shape.expert_groups : 1, packs_groups ? nodes : 1,
      !config.has_preserve_intragpu_slots() || config.preserve_intragpu_slots());
}

}  // namespace epsim
