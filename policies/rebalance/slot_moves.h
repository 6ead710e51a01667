// What has to move for one placement to become another: which slots get another expert, and where its weights are.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/ids.h"
#include "policies/placement/placement.h"

namespace epsim {

// How weights reach their slot, the shortest way first.
enum class MoveWay : uint8_t {
  kGpu,      // From another slot of the same rank.
  kNode,     // From a rank of the same node.
  kNetwork,  // From a rank of another node.
  kHost,     // From the memory of the rank's host.
};
inline constexpr int kMoveWays = 4;

// One slot that gets another expert.
struct SlotMove {
  Slot slot;
  LogicalExpert expert;
  MoveWay way;
  Slot source;          // Which holds the expert; of no meaning for kHost.
  StagedExpert staged;  // Where the host holds it; of no meaning but for kHost.
  Rank stager;          // The rank whose staging area that is; likewise.

  friend bool operator==(const SlotMove&, const SlotMove&) = default;
};

// The memory of a node's host, where every expert of the model lies: each rank of the node stages an equal part of
// them, experts / ranks of a node rounded up, in order.  A rank may so stage more experts than it has slots: a place in
// the staging area is not a slot.
class HostStaging {
 public:
  explicit HostStaging(const PlacementShape& shape)
      : ranks_per_node_(shape.ranks / shape.nodes),
        staged_per_rank_((shape.experts + ranks_per_node_ - 1) / ranks_per_node_) {}

  int staged_per_rank() const { return staged_per_rank_; }
  // The rank of `node` that stages `expert`, and where.
  Rank stager(Node node, LogicalExpert expert) const {
    return Rank(static_cast<int32_t>(Index(node)) * ranks_per_node_ +
                static_cast<int32_t>(Index(expert)) / staged_per_rank_);
  }
  StagedExpert place(LogicalExpert expert) const {
    return StagedExpert(static_cast<int32_t>(Index(expert)) % staged_per_rank_);
  }

 private:
  int ranks_per_node_, staged_per_rank_;
};

// The moves of one layer, by slot.  Slots that keep their expert do not move, nor do slots that become empty.
// Weights come from the host if `from_host`, else from a replica of `before`: of the same rank if there is one, else of
// the same node, else of any; of equally near ones from the rank that sends the fewest so far, the lowest slot where
// they are equal.  An expert that `before` has nowhere comes from the host in any case.
// Replicas on ranks that are `away` ([ranks], or empty: none is) have been lost.
// `sent` [ranks]: experts that each rank sends to others; the moves add to it.
std::vector<SlotMove> FindSlotMoves(const Placement& before, const Placement& after, Layer layer, bool from_host,
                                    absl::Span<int32_t> sent, absl::Span<const char> away = {});

}  // namespace epsim
