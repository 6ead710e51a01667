// A placement says which logical expert each slot holds, in every layer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/ids.h"

namespace epsim {

// How slots lie on ranks and nodes: slots_per_rank consecutive slots a rank, consecutive ranks a node.
struct PlacementShape {
  int layers = 0;
  int experts = 0;
  int slots = 0;  // In a layer, over all ranks.
  int ranks = 0;
  int nodes = 1;
  int expert_groups = 1;  // The model's routing groups (DeepSeek n_group); 1 where it has none.

  int slots_per_rank() const { return slots / ranks; }
  Rank rank_of(Slot slot) const { return Rank(static_cast<int32_t>(Index(slot)) / slots_per_rank()); }
  Node node_of(Rank rank) const { return Node(static_cast<int32_t>(Index(rank)) / (ranks / nodes)); }
  friend bool operator==(const PlacementShape&, const PlacementShape&) = default;
};

// In place of an expert: the slot holds none, because its rank has failed.
inline constexpr LogicalExpert kNoExpert{-1};

// As phy2log, log2phy and logcnt of DeepSeek EPLB.
class Placement {
 public:
  Placement() = default;
  // `experts_of_slots` [layers, slots], kNoExpert where a slot holds none; `replica_order`, if not empty, gives each
  // slot's rank among the replicas of its expert [layers, slots] (EPLB's order of creation; of no meaning where there
  // is none), else replicas are in ascending slot order. REQUIRES: every expert has at least one slot in every layer.
  Placement(const PlacementShape& shape, std::vector<LogicalExpert> experts_of_slots,
            absl::Span<const int32_t> replica_order = {});

  const PlacementShape& shape() const { return shape_; }
  // phy2log of one layer: the expert that each slot holds.  [slots]
  absl::Span<const LogicalExpert> experts_of_slots(Layer layer) const;
  // log2phy: the slots that hold `expert`, the original first.
  absl::Span<const Slot> replicas(Layer layer, LogicalExpert expert) const;

  // Makes `layer` as it is in `other`.  REQUIRES: other has the same shape.
  void TakeLayer(Layer layer, const Placement& other);

  friend bool operator==(const Placement& a, const Placement& b) {
    return a.experts_of_slots_ == b.experts_of_slots_ && a.replicas_ == b.replicas_;
  }

 private:
  PlacementShape shape_;
  std::vector<LogicalExpert> experts_of_slots_;  // [layers, slots]
  std::vector<Slot> replicas_;                   // [layers, slots], grouped by expert; the rest is Slot{-1}
  std::vector<int32_t> replica_begin_;           // [layers, experts + 1], into the layer's part of replicas_
};

}  // namespace epsim
