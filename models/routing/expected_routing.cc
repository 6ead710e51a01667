#include "models/routing/expected_routing.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/check.h"

namespace epsim {
namespace {

// One slot's share of an expert's tokens.
struct Share {
  uint16_t slot;
  uint64_t weight;
  uint64_t source_tokens;  // Of the sources that use the slot.
  uint64_t tokens = 0;
};

// Splits `count` tokens over `shares` by weight.
void Split(uint64_t count, std::vector<Share>* shares) {
  uint64_t left = count, all = 0;
  for (const Share& share : *shares) all += share.weight;
  EPSIM_CHECK(all > 0);
  for (Share& share : *shares) {
    share.tokens = count * share.weight / all;
    left -= share.tokens;
  }
  const auto remainder = [&](const Share& share) { return count * share.weight % all; };
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

int32_t TokensOf(const StepBatch& batch, size_t source) {
  return batch.rank_begin[source + 1] - batch.rank_begin[source];
}

// Each source uses one slot for an expert, that of a table.
class TableUse {
 public:
  TableUse(const StepBatch& batch, Layer layer, const ReplicaTable& table)
      : batch_(batch), layer_(layer), table_(table) {}

  // Of one expert, in the order in which sources use them.
  void FindShares(size_t expert, std::vector<Share>* shares) const {
    for (size_t s = 0; s < static_cast<size_t>(table_.ranks); ++s) {
      const uint16_t slot = slots(s)[expert];
      const uint64_t tokens = static_cast<uint64_t>(TokensOf(batch_, s));
      const auto share =
          std::find_if(shares->begin(), shares->end(), [slot](const Share& x) { return x.slot == slot; });
      if (share == shares->end()) {
        shares->push_back({slot, tokens, tokens});
      } else {
        share->weight += tokens;
        share->source_tokens += tokens;
      }
    }
  }
  bool Uses(size_t source, size_t expert, uint16_t slot) const { return slots(source)[expert] == slot; }
  // visit(slot, part) for the parts of the source's tokens of the expert.
  template <typename Visit>
  void ForEachPart(size_t source, size_t expert, const Visit& visit) const {
    visit(Slot(slots(source)[expert]), 1.0);
  }

 private:
  absl::Span<const uint16_t> slots(size_t source) const {
    return table_.of(layer_, Rank(static_cast<int32_t>(source)));
  }

  const StepBatch& batch_;
  const Layer layer_;
  const ReplicaTable& table_;
};

// Every source uses all replicas of an expert that have a weight, in the same measure.
class WeightUse {
 public:
  WeightUse(const StepBatch& batch, Layer layer, const Placement& placement, absl::Span<const uint32_t> weight)
      : tokens_(static_cast<uint64_t>(batch.rank_begin.back() - batch.rank_begin.front())),
        layer_(layer),
        placement_(placement),
        weight_(weight) {}

  void FindShares(size_t expert, std::vector<Share>* shares) const {
    for (const Slot slot : replicas(expert)) {
      if (weight_[Index(slot)] == 0) continue;
      shares->push_back({static_cast<uint16_t>(Index(slot)), weight_[Index(slot)], tokens_});
    }
  }
  bool Uses(size_t, size_t, uint16_t) const { return true; }
  template <typename Visit>
  void ForEachPart(size_t, size_t expert, const Visit& visit) const {
    uint64_t all = 0;
    for (const Slot slot : replicas(expert)) all += weight_[Index(slot)];
    for (const Slot slot : replicas(expert)) {
      if (weight_[Index(slot)] == 0) continue;
      visit(slot, static_cast<double>(weight_[Index(slot)]) / static_cast<double>(all));
    }
  }

 private:
  absl::Span<const Slot> replicas(size_t expert) const {
    return placement_.replicas(layer_, LogicalExpert(static_cast<int32_t>(expert)));
  }

  const uint64_t tokens_;
  const Layer layer_;
  const Placement& placement_;
  const absl::Span<const uint32_t> weight_;  // [slots]
};

template <typename Use>
class ExpectedLayer {
 public:
  ExpectedLayer(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape,
                const Use& use, RoutedLayer* routed)
      : batch_(batch),
        range_(range),
        shape_(shape),
        use_(use),
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
      use_.FindShares(e, &shares);
      Split(counts_[e], &shares);
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
    std::vector<std::pair<size_t, double>> parts;  // Of an expert's tokens: by member.
    for (size_t s = 0; s < static_cast<size_t>(shape_.ranks); ++s) {
      const int32_t tokens = source_tokens(s);
      std::fill(absent.begin(), absent.end(), 1.0);
      for (size_t e = 0; e < static_cast<size_t>(shape_.experts); ++e) {
        if (counts_[e] == 0) continue;
        parts.clear();
        use_.ForEachPart(s, e, [&](Slot slot, double part) {
          const size_t member = member_of_slot(slot);
          const auto known = std::find_if(parts.begin(), parts.end(), [&](const auto& x) { return x.first == member; });
          if (known == parts.end()) {
            parts.emplace_back(member, part);
          } else {
            known->second += part;
          }
        });
        const double chosen = std::min(static_cast<double>(counts_[e]) / tokens_, 1.0);
        for (const auto& [member, part] : parts) absent[member] *= 1.0 - chosen * part;
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
  int32_t source_tokens(size_t s) const { return TokensOf(batch_, s); }
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
      if (!use_.Uses(s, expert, share.slot)) continue;
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
  const PlacementShape& shape_;
  const Use& use_;
  const uint32_t* const counts_;  // [experts]
  const int32_t tokens_;          // Of the batch.
  RoutedLayer* const routed_;
};

template <typename Use>
void Count(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape, const Use& use,
           const RoutingDetail& detail, RoutedLayer* routed) {
  const size_t ranks = static_cast<size_t>(shape.ranks);
  EPSIM_CHECK(batch.counts != nullptr && batch.rank_begin.size() == ranks + 1);
  EPSIM_CHECK(range.begin.size() == ranks && range.end.size() == ranks);
  routed->Begin(shape, range, detail);
  if (batch.rank_begin[ranks] == batch.rank_begin[0]) return;

  ExpectedLayer<Use> expected(batch, range, layer, shape, use, routed);
  expected.CountPairs();
  for (const int32_t tokens : routed->tokens_per_slot) routed->pairs += tokens;
  const auto rank_of = [&shape](Slot slot) { return Index(shape.rank_of(slot)); };
  expected.CountVisits(shape.ranks, rank_of, &routed->tokens_between);
  if (!detail.tokens_to_node) return;
  const auto node_of = [&shape](Slot slot) { return Index(shape.node_of(shape.rank_of(slot))); };
  expected.CountVisits(shape.nodes, node_of, &routed->tokens_to_node);
}

}  // namespace

void CountExpected(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape,
                   const ReplicaTable& table, const RoutingDetail& detail, RoutedLayer* routed) {
  EPSIM_CHECK(table.ranks == shape.ranks && table.experts == shape.experts);
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(table.layers));
  Count(batch, range, layer, shape, TableUse(batch, layer, table), detail, routed);
}

void CountExpected(const StepBatch& batch, const TokenRange& range, Layer layer, const Placement& placement,
                   absl::Span<const uint32_t> weight, const RoutingDetail& detail, RoutedLayer* routed) {
  const PlacementShape& shape = placement.shape();
  EPSIM_CHECK(weight.size() == static_cast<size_t>(shape.slots));
  Count(batch, range, layer, shape, WeightUse(batch, layer, placement, weight), detail, routed);
}

}  // namespace epsim
