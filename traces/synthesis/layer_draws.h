// The routing of one layer, token after token: ids kept from the previous token, the rest drawn without replacement by
// alias tables (Walker 1977, Vose 1991) with rejection of ids already there.  Integer arithmetic throughout, so that
// every machine draws the same.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/random_stream.h"

namespace epsim {

// Draws an index in proportion to integer weights, in constant time.
class AliasTable {
 public:
  // REQUIRES: weights at most 2^24, not all 0; at most 2^16 of them.
  explicit AliasTable(absl::Span<const uint32_t> weights);

  // `random` is uniform over all 64-bit values.
  uint32_t operator()(uint64_t random) const {
    const unsigned __int128 product = static_cast<unsigned __int128>(random) * entries_.size();
    const uint32_t index = static_cast<uint32_t>(product >> 64);
    const Entry& entry = entries_[index];
    return static_cast<uint32_t>(static_cast<uint64_t>(product) >> 32) < entry.own ? index : entry.other;
  }

 private:
  struct Entry {
    uint32_t own;    // Of 2^32 draws that hit this entry, how many are its own index ...
    uint32_t other;  // ... and whose the rest are.
  };
  std::vector<Entry> entries_;
};

class LayerDraws {
 public:
  // weights: [domains][experts] (popularity.h), in each at least top_k positive.
  LayerDraws(int top_k, double keep_previous, std::vector<std::vector<uint32_t>> weights, RandomStream random);
  // Deals the experts in turn, in an order drawn from `random`.
  static LayerDraws Dealt(int experts, int top_k, RandomStream random);

  // The next token's ids, [top_k], kept ones first.  `previous`: the ids of the token before in the same request, or
  // null if there is none; may be `ids` itself.
  void Draw(int domain, const uint16_t* previous, uint16_t* ids) {
    if (dealt_) return Deal(ids);
    if (++now_ == 0) StartMarksAnew();
    const int top_k = top_k_;
    int n = 0;
    if (previous != nullptr && keep_ != 0) {
      uint64_t bits = 0;
      for (int i = 0; i < top_k; ++i) {
        bits = (i & 3) == 0 ? random_.Next() : bits >> 16;
        const uint16_t id = previous[i];
        ids[n] = id;
        n += (bits & 0xffff) < keep_;
      }
      for (int i = 0; i < n; ++i) mark_[ids[i]] = now_;
    }
    const AliasTable& table = tables_[domain];
    for (int misses = 0; n < top_k;) {
      const uint16_t id = name_[table(random_.Next())];
      ids[n] = id;
      const bool fresh = mark_[id] != now_;
      mark_[id] = now_;
      n += fresh;
      misses += !fresh;
      if (misses > kMostMisses) return Complete(domain, n, ids);
    }
  }

  // The popularity of experts `a` and `b`, as numbered in the weights, changes ids.
  void Exchange(int a, int b) { std::swap(name_[a], name_[b]); }
  // Every id moves up by `by`, modulo the number of experts.
  void Rotate(int by);

 private:
  static constexpr int kMostMisses = 64;

  void Deal(uint16_t* ids);
  void StartMarksAnew();
  // Draws ids[n], ... one by one from the weights of those not yet chosen: the same distribution without rejection.
  void Complete(int domain, int n, uint16_t* ids);

  int top_k_;
  uint32_t keep_;  // Of 2^16.
  bool dealt_ = false;
  std::vector<std::vector<uint32_t>> weights_;
  std::vector<AliasTable> tables_;
  std::vector<uint16_t> name_;  // Index in the weights -> id.
  // Ids chosen for this token are those whose mark is now_.
  std::vector<uint32_t> mark_;
  uint32_t now_ = 0;
  size_t next_dealt_ = 0;
  RandomStream random_;
};

}  // namespace epsim
