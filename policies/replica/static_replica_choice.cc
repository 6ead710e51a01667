#include "policies/replica/static_replica_choice.h"

#include <utility>

#include "engine/check.h"

namespace epsim {
namespace {

// Swaps a uniformly chosen `count` of `items`, in uniform order, to the front (Fisher and Yates; Durstenfeld 1964).
void DrawToFront(absl::Span<uint16_t> items, size_t count, RandomStream& random) {
  for (size_t i = 0; i < count && i + 1 < items.size(); ++i)
    std::swap(items[i], items[i + random.Below(items.size() - i)]);
}

class NearestReplicaChoice : public FixedReplicaChoice {
 public:
  void ChooseLayer(const Placement& placement, Layer layer, RandomStream* random, ReplicaTable* table) override {
    const PlacementShape& shape = placement.shape();
    EPSIM_CHECK(shape.nodes > 0 && shape.ranks % shape.nodes == 0 && shape.slots % shape.ranks == 0);
    EPSIM_CHECK(shape.slots <= 1 << 16);
    const size_t ranks = shape.ranks, experts = shape.experts;
    uint16_t* const slot = &table->slot[Index(layer) * ranks * experts];
    for (size_t expert = 0; expert < experts; ++expert) {
      ChooseOne(shape, placement.replicas(layer, LogicalExpert(static_cast<int32_t>(expert))), *random);
      for (size_t rank = 0; rank < ranks; ++rank) slot[rank * experts + expert] = static_cast<uint16_t>(choice_[rank]);
    }
  }

 private:
  static constexpr int32_t kNone = -1;

  // Fills choice_ [ranks] for one expert.
  void ChooseOne(const PlacementShape& shape, absl::Span<const Slot> replicas, RandomStream& random) {
    const int32_t ranks_per_node = shape.ranks / shape.nodes;
    choice_.assign(shape.ranks, kNone);
    on_node_.assign(shape.nodes, 0);
    for (Slot slot : replicas) {
      const Rank rank = shape.rank_of(slot);
      ++on_node_[Index(shape.node_of(rank))];
      if (choice_[Index(rank)] == kNone) choice_[Index(rank)] = static_cast<int32_t>(Index(slot));
    }
    far_.clear();
    for (int32_t node = 0; node < shape.nodes; ++node) {
      std::vector<int32_t>& wanting = on_node_[node] > 0 ? near_ : far_;
      near_.clear();
      for (int32_t rank = node * ranks_per_node; rank < (node + 1) * ranks_per_node; ++rank) {
        if (choice_[rank] == kNone) wanting.push_back(rank);
      }
      if (near_.empty()) continue;
      candidates_.clear();
      for (Slot slot : replicas) {
        if (shape.node_of(shape.rank_of(slot)) == Node(node)) candidates_.push_back(static_cast<uint16_t>(Index(slot)));
      }
      Deal(near_, random);
    }
    if (far_.empty()) return;
    candidates_.clear();
    for (Slot slot : replicas) candidates_.push_back(static_cast<uint16_t>(Index(slot)));
    Deal(far_, random);
  }

  // Gives each of `ranks` one of candidates_: every candidate ranks / candidates times, the rest a random few once
  // more, all of it shuffled.
  void Deal(absl::Span<const int32_t> ranks, RandomStream& random) {
    if (candidates_.size() == 1) {  // Nothing to draw.
      for (int32_t rank : ranks) choice_[rank] = candidates_[0];
      return;
    }
    const size_t rounds = ranks.size() / candidates_.size(), rest = ranks.size() % candidates_.size();
    hand_.clear();
    for (size_t round = 0; round < rounds; ++round) hand_.insert(hand_.end(), candidates_.begin(), candidates_.end());
    DrawToFront(absl::MakeSpan(candidates_), rest, random);
    hand_.insert(hand_.end(), candidates_.begin(), candidates_.begin() + rest);
    DrawToFront(absl::MakeSpan(hand_), hand_.size(), random);
    for (size_t i = 0; i < ranks.size(); ++i) choice_[ranks[i]] = hand_[i];
  }

  std::vector<int32_t> choice_;       // [ranks], a slot or kNone
  std::vector<int32_t> on_node_;      // [nodes], replicas of the expert
  std::vector<int32_t> near_, far_;   // Ranks without a choice: with a replica on their node, without.
  std::vector<uint16_t> candidates_;  // Slots to deal.
  std::vector<uint16_t> hand_;        // What is dealt, in order of rank.
};

}  // namespace

std::unique_ptr<FixedReplicaChoice> NewStaticReplicaChoice() { return std::make_unique<NearestReplicaChoice>(); }

}  // namespace epsim
