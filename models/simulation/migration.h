// Weights on their way: what filling slots with other experts puts on the links and on the memory of the GPUs.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/units.h"
#include "platforms/network/network.h"
#include "policies/placement/placement.h"
#include "policies/rebalance/rebalance.pb.h"
#include "policies/rebalance/slot_moves.h"

namespace epsim {

struct Migration {
  TrafficMatrix traffic;
  std::vector<int64_t> copied;             // [ranks]: bytes that each GPU copies within its memory, at the end.
  std::array<int64_t, kMoveWays> bytes{};  // By MoveWay.
  int64_t slots = 0;                       // That get another expert.

  bool travels() const {
    return bytes[static_cast<size_t>(MoveWay::kNode)] + bytes[static_cast<size_t>(MoveWay::kNetwork)] +
               bytes[static_cast<size_t>(MoveWay::kHost)] >
           0;
  }
};

// Nothing moves yet.
Migration NewMigration(int ranks, const MigrationConfig& config);

// Adds moves, each of `expert` bytes.  What arrives in a buffer (`buffered`) is copied once more.
void AddMoves(absl::Span<const SlotMove> moves, const PlacementShape& shape, Bytes expert, bool buffered,
              Migration* migration);

// How long the GPU that copies the most takes: each byte is read and written, 2 * bytes / rate.
Duration CopyTime(const Migration& migration, BytesPerSecond rate);

}  // namespace epsim
