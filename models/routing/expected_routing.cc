#include "models/routing/expected_routing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "engine/check.h"

namespace epsim {
namespace {

// One slot's share of an expert's tokens.
struct Share {
  uint16_t slot;
  uint64_t source_tokens;  // Of the sources that use the slot; then the remainder of the division.
};

// Splits `count` tokens over `shares`, whose source_tokens add up to `all`.
void Split(uint64_t count, uint64_t all, std::vector<Share>* shares, std::vector<int32_t>* tokens_per_slot) {
  uint64_t left = count;
  for (Share& share : *shares) {
    const uint64_t quota = count * share.source_tokens;
    (*tokens_per_slot)[share.slot] += static_cast<int32_t>(quota / all);
    left -= quota / all;
    share.source_tokens = quota % all;
  }
  std::sort(shares->begin(), shares->end(), [](const Share& a, const Share& b) {
    return a.source_tokens != b.source_tokens ? a.source_tokens > b.source_tokens : a.slot < b.slot;
  });
  EPSIM_CHECK(left < shares->size() || left == 0);
  for (uint64_t i = 0; i < left; ++i) ++(*tokens_per_slot)[(*shares)[i].slot];
}

}  // namespace

void CountExpected(const StepBatch& batch, Layer layer, const PlacementShape& shape, const ReplicaTable& table,
                   RoutedLayer* routed) {
  const size_t ranks = static_cast<size_t>(shape.ranks), experts = static_cast<size_t>(shape.experts);
  EPSIM_CHECK(batch.counts != nullptr && batch.rank_begin.size() == ranks + 1);
  EPSIM_CHECK(table.ranks == shape.ranks && table.experts == shape.experts);
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(table.layers));
  const uint32_t* counts = batch.counts + Index(layer) * experts;

  routed->tokens_per_slot.assign(static_cast<size_t>(shape.slots), 0);
  routed->tokens_between.assign(ranks * ranks, 0);
  routed->pairs = 0;
  const int32_t tokens = batch.rank_begin[ranks] - batch.rank_begin[0];
  if (tokens == 0) return;

  std::vector<Share> shares;
  for (size_t e = 0; e < experts; ++e) {
    if (counts[e] == 0) continue;
    routed->pairs += counts[e];
    shares.clear();
    for (size_t s = 0; s < ranks; ++s) {
      const uint16_t slot = table.of(layer, Rank(static_cast<int32_t>(s)))[e];
      const auto share = std::find_if(shares.begin(), shares.end(), [slot](const Share& x) { return x.slot == slot; });
      const uint64_t source_tokens = static_cast<uint64_t>(batch.rank_begin[s + 1] - batch.rank_begin[s]);
      if (share == shares.end()) {
        shares.push_back({slot, source_tokens});
      } else {
        share->source_tokens += source_tokens;
      }
    }
    Split(counts[e], static_cast<uint64_t>(tokens), &shares, &routed->tokens_per_slot);
  }

  std::vector<double> absent(ranks), sum(ranks, 0.0);
  for (size_t s = 0; s < ranks; ++s) {
    const int32_t source_tokens = batch.rank_begin[s + 1] - batch.rank_begin[s];
    const absl::Span<const uint16_t> slot_of_expert = table.of(layer, Rank(static_cast<int32_t>(s)));
    std::fill(absent.begin(), absent.end(), 1.0);
    for (size_t e = 0; e < experts; ++e) {
      absent[Index(shape.rank_of(Slot(slot_of_expert[e])))] *=
          1.0 - std::min(static_cast<double>(counts[e]) / tokens, 1.0);
    }
    for (size_t d = 0; d < ranks; ++d) {
      const double offset = (static_cast<double>(d) + 0.5) / static_cast<double>(ranks);
      const double before = std::floor(sum[d] + offset);
      sum[d] += source_tokens * (1.0 - absent[d]);
      const double whole = std::floor(sum[d] + offset) - before;
      routed->tokens_between[s * ranks + d] = std::min(source_tokens, static_cast<int32_t>(whole));
    }
  }
}

}  // namespace epsim
