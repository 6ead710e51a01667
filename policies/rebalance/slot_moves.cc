#include "policies/rebalance/slot_moves.h"

#include <tuple>

#include "engine/check.h"

namespace epsim {

std::vector<SlotMove> FindSlotMoves(const Placement& before, const Placement& after, Layer layer, bool from_host,
                                    absl::Span<int32_t> sent, absl::Span<const char> away) {
  const PlacementShape& shape = before.shape();
  EPSIM_CHECK(shape == after.shape() && sent.size() == static_cast<size_t>(shape.ranks));
  const HostStaging staging(shape);
  const absl::Span<const LogicalExpert> old_experts = before.experts_of_slots(layer);
  const absl::Span<const LogicalExpert> new_experts = after.experts_of_slots(layer);
  std::vector<SlotMove> moves;
  for (int i = 0; i < shape.slots; ++i) {
    const LogicalExpert expert = new_experts[i];
    if (expert == old_experts[i] || expert == kNoExpert) continue;
    const Slot slot{i};
    const Rank rank = shape.rank_of(slot);
    const Node node = shape.node_of(rank);
    SlotMove move{
        .slot = slot, .expert = expert, .way = MoveWay::kHost, .source = Slot{-1}, .staged = {}, .stager = {}};
    if (!from_host) {
      // (way, sent by the source, source): the least wins.
      std::tuple<MoveWay, int32_t, Slot> best{MoveWay::kHost, 0, Slot{-1}};
      for (Slot replica : before.replicas(layer, expert)) {
        const Rank source = shape.rank_of(replica);
        if (!away.empty() && away[Index(source)] != 0) continue;
        const MoveWay way = source == rank                  ? MoveWay::kGpu
                            : shape.node_of(source) == node ? MoveWay::kNode
                                                            : MoveWay::kNetwork;
        best = std::min(best, std::tuple(way, way == MoveWay::kGpu ? 0 : sent[Index(source)], replica));
      }
      move.way = std::get<MoveWay>(best);
      move.source = std::get<Slot>(best);
      if (move.way == MoveWay::kNode || move.way == MoveWay::kNetwork) ++sent[Index(shape.rank_of(move.source))];
    }
    if (move.way == MoveWay::kHost) {
      move.stager = staging.stager(node, expert);
      move.staged = staging.place(expert);
    }
    moves.push_back(move);
  }
  return moves;
}

}  // namespace epsim
