// The path of TokenRouting for every machine and every shape: one source rank's tokens, id by id.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

// The tokens of one source rank in one layer.  Id: uint8_t or uint16_t.
template <typename Id>
struct SourceTokens {
  const Id* ids = nullptr;               // [tokens, top_k]
  const uint8_t* valid_count = nullptr;  // [tokens], or null: all have top_k.
  int tokens = 0;
  int top_k = 0;
  const uint16_t* slot_of_expert = nullptr;  // [experts]

  int valid(int token) const { return valid_count != nullptr ? valid_count[token] : top_k; }
};

// counts[i] += how many of `words` have bit i; i < n <= 64.  A positional population count: eight words at a time
// through carry-save adders, what comes out into bytes (after Harley and Seal; Klarqvist, Mula, Lemire 2020).
inline void AddBitCounts(absl::Span<const uint64_t> words, int n, int32_t* counts) {
  constexpr size_t kBlock = 248;  // Counts fit in a byte; a multiple of 8.
  constexpr uint64_t kLowBits = 0x0101010101010101;
  for (size_t begin = 0; begin < words.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, words.size());
    uint64_t ones = 0, twos = 0, fours = 0;
    // *sum, a and b are bits of the same weight: leaves the low bits of their sums, returns the high ones.
    const auto add = [](uint64_t* sum, uint64_t a, uint64_t b) {
      const uint64_t half = a ^ b, carry = (a & b) | (half & *sum);
      *sum ^= half;
      return carry;
    };
    uint64_t bytes[8] = {};  // Byte i of bytes[j] counts bit 8 i + j.
    const auto add_bytes = [&bytes](uint64_t bits, uint64_t weight) {
      for (int j = 0; j < 8; ++j) bytes[j] += (bits >> j & kLowBits) * weight;
    };
    size_t t = begin;
    for (; t + 8 <= end; t += 8) {
      const uint64_t* w = &words[t];
      const uint64_t twos_a = add(&ones, w[0], w[1]), twos_b = add(&ones, w[2], w[3]);
      const uint64_t twos_c = add(&ones, w[4], w[5]), twos_d = add(&ones, w[6], w[7]);
      const uint64_t fours_a = add(&twos, twos_a, twos_b), fours_b = add(&twos, twos_c, twos_d);
      add_bytes(add(&fours, fours_a, fours_b), 8);
    }
    for (; t < end; ++t) add_bytes(words[t], 1);
    add_bytes(ones, 1);
    add_bytes(twos, 2);
    add_bytes(fours, 4);
    for (int bit = 0; bit < n; ++bit) counts[bit] += static_cast<int32_t>(bytes[bit % 8] >> (8 * (bit / 8)) & 0xff);
  }
}

// What the tokens of one source are counted into; null: not counted.
struct SourceCounts {
  int32_t* tokens_per_slot = nullptr;  // [slots]
  int32_t* tokens_to_rank = nullptr;   // [ranks]
  int32_t* pairs_to_rank = nullptr;    // [ranks], or null.
  int32_t* tokens_to_node = nullptr;   // [nodes], or null.
};

// Where slots lie.
struct SlotPlaces {
  const uint16_t* rank_of_slot = nullptr;      // [slots]
  const uint16_t* node_of_slot = nullptr;      // [slots]
  const uint64_t* rank_bit_of_slot = nullptr;  // [slots]: 1 << rank % 64.
  int ranks = 0;
  int ranks_per_node = 0;
};

// The tables of SlotPlaces.
struct SlotTables {
  explicit SlotTables(const PlacementShape& shape) : ranks(shape.ranks), ranks_per_node(shape.ranks / shape.nodes) {
    for (int slot = 0; slot < shape.slots; ++slot) {
      const size_t rank = Index(shape.rank_of(Slot(slot)));
      rank_of_slot.push_back(static_cast<uint16_t>(rank));
      node_of_slot.push_back(static_cast<uint16_t>(Index(shape.node_of(Rank(static_cast<int32_t>(rank))))));
      rank_bit_of_slot.push_back(uint64_t{1} << rank % 64);
    }
  }
  SlotPlaces places() const {
    return {rank_of_slot.data(), node_of_slot.data(), rank_bit_of_slot.data(), ranks, ranks_per_node};
  }

  std::vector<uint16_t> rank_of_slot, node_of_slot;
  std::vector<uint64_t> rank_bit_of_slot;
  int ranks, ranks_per_node;
};

// Bit i * group of each word becomes the OR of bits [i * group, (i + 1) * group); the other bits are of no meaning.
inline void OrGroups(absl::Span<uint64_t> words, int group) {
  // Doubles the number of bits that are seen from each, then adds what is missing to `group`.
  int seen = 1;
  for (; 2 * seen <= group; seen *= 2) {
    for (uint64_t& word : words) word |= word >> seen;
  }
  if (seen == group) return;
  for (uint64_t& word : words) word |= word >> (group - seen);
}

// Up to 64 ranks: the ranks that a token visits are the bits of a word.  Adds to `counts`, whose pairs_to_rank is null
// unless kPairs.  kTopK is top_k where known, else 0.
template <int kTopK, bool kPairs, typename Id>
void CountByWords(const SourceTokens<Id>& source, const SlotPlaces& places, const SourceCounts& counts) {
  const int top_k = kTopK > 0 ? kTopK : source.top_k;
  const uint16_t* const slot_of_expert = source.slot_of_expert;
  const uint16_t* const rank_of_slot = places.rank_of_slot;
  const uint64_t* const rank_bit_of_slot = places.rank_bit_of_slot;
  int32_t* const tokens_per_slot = counts.tokens_per_slot;
  int32_t* const pairs_to_rank = counts.pairs_to_rank;
  constexpr int kBlock = 256;
  uint64_t visited[kBlock];
  const Id* ids = source.ids;
  for (int begin = 0; begin < source.tokens; begin += kBlock) {
    const int tokens = std::min(kBlock, source.tokens - begin);
    for (int t = 0; t < tokens; ++t, ids += top_k) {
      uint64_t word = 0;
      const auto count = [&](Id id) {
        const uint16_t slot = slot_of_expert[id];
        ++tokens_per_slot[slot];
        if constexpr (kPairs) ++pairs_to_rank[rank_of_slot[slot]];
        word |= rank_bit_of_slot[slot];
      };
      const int valid = source.valid(begin + t);
      if (valid == top_k) {
        for (int k = 0; k < top_k; ++k) count(ids[k]);
      } else {
        for (int k = 0; k < valid; ++k) count(ids[k]);
      }
      visited[t] = word;
    }
    const absl::Span<uint64_t> words(visited, static_cast<size_t>(tokens));
    AddBitCounts(words, places.ranks, counts.tokens_to_rank);
    if (counts.tokens_to_node == nullptr) continue;
    OrGroups(words, places.ranks_per_node);
    int32_t of_bit[64] = {};
    AddBitCounts(words, places.ranks, of_bit);
    for (int r = 0, node = 0; r < places.ranks; r += places.ranks_per_node) counts.tokens_to_node[node++] += of_bit[r];
  }
}

// Any number of ranks: last_token[rank] and last_token_of_node[node] are the last token that was seen to go there, or
// less than first_token; tokens are numbered from first_token on.  Adds to `counts`.
template <typename Id>
void CountByStamps(const SourceTokens<Id>& source, const SlotPlaces& places, int32_t first_token, int32_t* last_token,
                   int32_t* last_token_of_node, const SourceCounts& counts) {
  const Id* ids = source.ids;
  for (int t = 0; t < source.tokens; ++t, ids += source.top_k) {
    const int valid = source.valid(t);
    for (int k = 0; k < valid; ++k) {
      const uint16_t slot = source.slot_of_expert[ids[k]];
      const uint16_t rank = places.rank_of_slot[slot];
      ++counts.tokens_per_slot[slot];
      if (counts.pairs_to_rank != nullptr) ++counts.pairs_to_rank[rank];
      counts.tokens_to_rank[rank] += last_token[rank] != first_token + t;
      last_token[rank] = first_token + t;
      if (counts.tokens_to_node == nullptr) continue;
      const uint16_t node = places.node_of_slot[slot];
      counts.tokens_to_node[node] += last_token_of_node[node] != first_token + t;
      last_token_of_node[node] = first_token + t;
    }
  }
}

// The sources of one layer, one after the other, by the path that fits their ranks.
class PortableCounter {
 public:
  explicit PortableCounter(const SlotPlaces& places) : places_(places) {
    if (places.ranks <= kWordRanks) return;
    last_token_.assign(static_cast<size_t>(places.ranks), -1);
    last_token_of_node_.assign(static_cast<size_t>(places.ranks / places.ranks_per_node), -1);
  }

  // Adds to `counts`.  first_token: as for CountByStamps.
  template <typename Id>
  void Count(const SourceTokens<Id>& source, int32_t first_token, const SourceCounts& counts) {
    if (places_.ranks > kWordRanks) {
      CountByStamps(source, places_, first_token, last_token_.data(), last_token_of_node_.data(), counts);
    } else if (counts.pairs_to_rank != nullptr) {
      source.top_k == 8 ? CountByWords<8, true>(source, places_, counts)
                        : CountByWords<0, true>(source, places_, counts);
    } else {
      source.top_k == 8 ? CountByWords<8, false>(source, places_, counts)
                        : CountByWords<0, false>(source, places_, counts);
    }
  }

 private:
  static constexpr int kWordRanks = 64;
  const SlotPlaces places_;
  std::vector<int32_t> last_token_, last_token_of_node_;
};

}  // namespace epsim
