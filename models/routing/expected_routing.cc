#include "models/routing/expected_routing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/check.h"

namespace epsim {
namespace {

// One slot's share of an expert's tokens.
struct Share {
  uint16_t slot;
  uint64_t source_tokens;  // Of the sources that use the slot.
  uint64_t tokens = 0;
};

// Splits `count` tokens over `shares`, whose source_tokens add up to `all`.
void Split(uint64_t count, uint64_t all, std::vector<Share>* shares) {
  uint64_t left = count;
  for (Share& share : *shares) {
    share.tokens = count * share.source_tokens / all;
    left -= share.tokens;
  }
  const auto remainder = [&](const Share& share) { return count * share.source_tokens % all; };
  std::sort(shares->begin(), shares->end(), [&](const Share& a, const Share& b) {
    const uint64_t of_a = remainder(a), of_b = remainder(b);
    return of_a != of_b ? of_a > of_b : a.slot < b.slot;
  });
  EPSIM_CHECK(left < shares->size() || left == 0);
  for (uint64_t i = 0; i < left; ++i) ++(*shares)[i].tokens;
}

// From 0 to 1, evenly spread over a and over b: the additive recurrence of the plane (Roberts 2018, "The unreasonable
// effectiveness of quasirandom sequences"), 1 / phi and 1 / phi^2 with phi^3 = phi + 1, in steps of 2^-32.
double Spread(size_t a, size_t b) {
  const uint32_t turn = static_cast<uint32_t>(a) * 3'242'174'889u + static_cast<uint32_t>(b) * 2'447'445'414u;
  return (static_cast<double>(turn) + 0.5) / 4'294'967'296.0;
}

// What the tokens [begin, end) of `tokens` have of `whole`.
int32_t ShareOf(int64_t whole, int64_t tokens, int64_t begin, int64_t end, double offset) {
  if (begin == 0 && end == tokens) return static_cast<int32_t>(whole);
  const double rate = static_cast<double>(whole) / static_cast<double>(tokens);
  // The whole number itself at the end, so that nothing is lost to rounding.
  const auto up_to = [&](int64_t position) {
    return position == tokens
               ? static_cast<double>(whole)
               : std::min(std::floor(rate * static_cast<double>(position) + offset), static_cast<double>(whole));
  };
  return static_cast<int32_t>(up_to(end) - up_to(begin));
}

class ExpectedLayer {
 public:
  ExpectedLayer(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape,
                const ReplicaTable& table, RoutedLayer* routed)
      : batch_(batch),
        range_(range),
        layer_(layer),
        shape_(shape),
        table_(table),
        counts_(batch.counts + Index(layer) * static_cast<size_t>(shape.experts)),
        tokens_(batch.rank_begin.back() - batch.rank_begin.front()),
        routed_(routed) {}

  // Of *routed: tokens_per_slot, and pairs_between unless that is empty.
  void CountPairs() {
    const size_t ranks = static_cast<size_t>(shape_.ranks);
    bool all_tokens = true;
    for (size_t s = 0; s < ranks; ++s) all_tokens = all_tokens && routed_->tokens[s] == source_tokens(s);
    std::vector<Share> shares;
    for (size_t e = 0; e < static_cast<size_t>(shape_.experts); ++e) {
      if (counts_[e] == 0) continue;
      shares.clear();
      for (size_t s = 0; s < ranks; ++s) {
        const uint16_t slot = table_.of(layer_, Rank(static_cast<int32_t>(s)))[e];
        const auto share =
            std::find_if(shares.begin(), shares.end(), [slot](const Share& x) { return x.slot == slot; });
        if (share == shares.end()) {
          shares.push_back({slot, static_cast<uint64_t>(source_tokens(s))});
        } else {
          share->source_tokens += static_cast<uint64_t>(source_tokens(s));
        }
      }
      Split(counts_[e], static_cast<uint64_t>(tokens_), &shares);
      for (const Share& share : shares) {
        if (all_tokens && routed_->pairs_between.empty()) {
          routed_->tokens_per_slot[share.slot] += static_cast<int32_t>(share.tokens);
        } else if (share.tokens > 0) {
          SpreadOverSources(e, share);
        }
      }
    }
  }

  // The tokens that visit each of `members` (ranks or nodes), of which `member_of_slot` tells where a slot lies.
  // tokens_to: [ranks, members].
  template <typename MemberOfSlot>
  void CountVisits(int members, const MemberOfSlot& member_of_slot, std::vector<int32_t>* tokens_to) {
    const size_t size = static_cast<size_t>(members);
    std::vector<double> absent(size), sum(size, 0.0);
    for (size_t s = 0; s < static_cast<size_t>(shape_.ranks); ++s) {
      const int32_t tokens = source_tokens(s);
      const absl::Span<const uint16_t> slot_of_expert = table_.of(layer_, Rank(static_cast<int32_t>(s)));
      std::fill(absent.begin(), absent.end(), 1.0);
      for (size_t e = 0; e < static_cast<size_t>(shape_.experts); ++e) {
        absent[member_of_slot(Slot(slot_of_expert[e]))] *=
            1.0 - std::min(static_cast<double>(counts_[e]) / tokens_, 1.0);
      }
      for (size_t d = 0; d < size; ++d) {
        const double offset = (static_cast<double>(d) + 0.5) / static_cast<double>(members);
        const double before = std::floor(sum[d] + offset);
        sum[d] += tokens * (1.0 - absent[d]);
        const double whole = std::floor(sum[d] + offset) - before;
        (*tokens_to)[s * size + d] = InRange(s, std::min(tokens, static_cast<int32_t>(whole)), d);
      }
    }
  }

 private:
  int32_t source_tokens(size_t s) const { return batch_.rank_begin[s + 1] - batch_.rank_begin[s]; }
  // What the range has of `whole`, a number of source s.
  int32_t InRange(size_t s, int64_t whole, size_t spread) const {
    const int32_t first = batch_.rank_begin[s];
    return ShareOf(whole, source_tokens(s), range_.begin[s] - first, range_.end[s] - first, Spread(s, spread));
  }

  void SpreadOverSources(size_t expert, const Share& share) {
    const size_t ranks = static_cast<size_t>(shape_.ranks);
    const size_t destination = Index(shape_.rank_of(Slot(share.slot)));
    const int64_t all = static_cast<int64_t>(share.source_tokens), whole = static_cast<int64_t>(share.tokens);
    int64_t position = 0;
    for (size_t s = 0; s < ranks; ++s) {
      if (table_.of(layer_, Rank(static_cast<int32_t>(s)))[expert] != share.slot) continue;
      const int64_t tokens = source_tokens(s);
      const int32_t of_source = ShareOf(whole, all, position, position + tokens, Spread(share.slot, expert));
      position += tokens;
      if (of_source == 0) continue;
      const int32_t of_range = InRange(s, of_source, share.slot);
      routed_->tokens_per_slot[share.slot] += of_range;
      if (!routed_->pairs_between.empty()) routed_->pairs_between[s * ranks + destination] += of_range;
    }
  }

  const StepBatch& batch_;
  const TokenRange& range_;
  const Layer layer_;
  const PlacementShape& shape_;
  const ReplicaTable& table_;
  const uint32_t* const counts_;  // [experts]
  const int32_t tokens_;          // Of the batch.
  RoutedLayer* const routed_;
};

}  // namespace

void CountExpected(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape,
                   const ReplicaTable& table, const RoutingDetail& detail, RoutedLayer* routed) {
  const size_t ranks = static_cast<size_t>(shape.ranks), nodes = static_cast<size_t>(shape.nodes);
  EPSIM_CHECK(batch.counts != nullptr && batch.rank_begin.size() == ranks + 1);
  EPSIM_CHECK(range.begin.size() == ranks && range.end.size() == ranks);
  EPSIM_CHECK(table.ranks == shape.ranks && table.experts == shape.experts);
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(table.layers));

  routed->tokens_per_slot.assign(static_cast<size_t>(shape.slots), 0);
  routed->tokens_between.assign(ranks * ranks, 0);
  routed->pairs_between.assign(detail.pairs_between ? ranks * ranks : 0, 0);
  routed->tokens_to_node.assign(detail.tokens_to_node ? ranks * nodes : 0, 0);
  routed->tokens.resize(ranks);
  for (size_t s = 0; s < ranks; ++s) routed->tokens[s] = range.end[s] - range.begin[s];
  routed->pairs = 0;
  if (batch.rank_begin[ranks] == batch.rank_begin[0]) return;

  ExpectedLayer expected(batch, range, layer, shape, table, routed);
  expected.CountPairs();
  for (const int32_t tokens : routed->tokens_per_slot) routed->pairs += tokens;
  const auto rank_of = [&shape](Slot slot) { return Index(shape.rank_of(slot)); };
  expected.CountVisits(shape.ranks, rank_of, &routed->tokens_between);
  if (!detail.tokens_to_node) return;
  const auto node_of = [&shape](Slot slot) { return Index(shape.node_of(shape.rank_of(slot))); };
  expected.CountVisits(shape.nodes, node_of, &routed->tokens_to_node);
}

}  // namespace epsim
