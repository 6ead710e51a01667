#include "models/simulation/migration.h"

#include <algorithm>

namespace epsim {

Migration NewMigration(int ranks, const MigrationConfig& config) {
  Migration migration;
  migration.traffic.ranks = ranks;
  migration.traffic.bytes.assign(static_cast<size_t>(ranks) * ranks, 0);
  migration.traffic.efficiency = {config.link_efficiency(), config.network_efficiency()};
  migration.copied.assign(ranks, 0);
  return migration;
}

void AddMoves(absl::Span<const SlotMove> moves, const PlacementShape& shape, Bytes expert, bool buffered,
              Migration* migration) {
  for (const SlotMove& move : moves) {
    const size_t rank = Index(shape.rank_of(move.slot));
    ++migration->slots;
    migration->bytes[static_cast<size_t>(move.way)] += expert.count();
    if (move.way == MoveWay::kGpu || buffered) migration->copied[rank] += expert.count();
    switch (move.way) {
      case MoveWay::kGpu:
        break;
      case MoveWay::kNode:
      case MoveWay::kNetwork:
        migration->traffic.bytes[Index(shape.rank_of(move.source)) * shape.ranks + rank] += expert.count();
        break;
      case MoveWay::kHost:
        migration->traffic.from_host.resize(shape.ranks);
        migration->traffic.from_host[rank] += expert.count();
        break;
    }
  }
}

Duration CopyTime(const Migration& migration, BytesPerSecond rate) {
  const int64_t most = *std::max_element(migration.copied.begin(), migration.copied.end());
  return Bytes(2 * most) / rate;
}

}  // namespace epsim
