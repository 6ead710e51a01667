#include "policies/replica/pair_deal.h"

#include <algorithm>
#include <limits>

#include "engine/check.h"

namespace epsim {

std::vector<int32_t> CountPairs(const RouterCall& call, int experts) {
  std::vector<int32_t> pairs(call.begin.size() * static_cast<size_t>(experts));
  ReadIds(call, [&](const auto* ids) {
    const size_t top_k = static_cast<size_t>(call.top_k);
    for (size_t source = 0; source < call.begin.size(); ++source) {
      int32_t* of_source = &pairs[source * static_cast<size_t>(experts)];
      for (int32_t token = call.begin[source]; token < call.end[source]; ++token) {
        const auto* chosen = ids + static_cast<size_t>(token) * top_k;
        const int valid = call.valid(token);
        for (int k = 0; k < valid; ++k) ++of_source[chosen[k]];
      }
    }
  });
  return pairs;
}

std::vector<int64_t> SumOverSources(absl::Span<const int32_t> pairs, int experts) {
  const size_t size = static_cast<size_t>(experts);
  std::vector<int64_t> sum(size);
  for (size_t row = 0; row < pairs.size(); row += size) {
    for (size_t e = 0; e < size; ++e) sum[e] += pairs[row + e];
  }
  return sum;
}

PairDeal::PairDeal(const ReplicaSplit& split, absl::Span<const int32_t> pairs)
    : split_(split), pairs_(pairs), ranks_(split.load().size()), experts_(pairs.size() / ranks_) {
  first_row_.resize(experts_);
  size_t rows = 0;
  for (const uint32_t expert : split.replicated()) {
    first_row_[expert] = rows;
    rows += split.parts(expert).size();
  }
  given_.resize(rows * ranks_);
}

void PairDeal::PreferNear(const PlacementShape& shape) {
  const size_t ranks_per_node = static_cast<size_t>(shape.ranks / shape.nodes);
  std::vector<int32_t> has(ranks_);  // Pairs of the expert that each source has yet to give.
  std::vector<int64_t> wants;        // What each part has yet to get.
  for (const uint32_t expert : split_.replicated()) {
    const absl::Span<const ReplicaSplit::Part> parts = split_.parts(expert);
    int32_t* const given = &given_[first_row_[expert] * ranks_];
    for (size_t s = 0; s < ranks_; ++s) has[s] = pairs_[s * experts_ + expert];
    wants.clear();
    for (const ReplicaSplit::Part& part : parts) wants.push_back(part.pairs);
    const auto give = [&](size_t source, size_t part) {
      const int32_t pairs = static_cast<int32_t>(std::min<int64_t>(has[source], wants[part]));
      given[part * ranks_ + source] += pairs;
      has[source] -= pairs;
      wants[part] -= pairs;
    };
    for (size_t p = 0; p < parts.size(); ++p) give(parts[p].rank, p);
    for (size_t p = 0; p < parts.size(); ++p) {
      const size_t node = parts[p].rank / ranks_per_node;
      for (size_t s = node * ranks_per_node; s < (node + 1) * ranks_per_node && wants[p] > 0; ++s) give(s, p);
    }
    for (size_t p = 0, s = 0; p < parts.size(); ++p) {
      for (; wants[p] > 0; ++s) {
        EPSIM_CHECK(s < ranks_);
        give(s, p);
        if (has[s] > 0) break;
      }
    }
  }
}

void PairDeal::InProportion() {
  std::vector<int64_t> has(ranks_);
  for (const uint32_t expert : split_.replicated()) {
    const absl::Span<const ReplicaSplit::Part> parts = split_.parts(expert);
    int32_t* const given = &given_[first_row_[expert] * ranks_];
    int64_t left = 0;
    for (size_t s = 0; s < ranks_; ++s) left += has[s] = pairs_[s * experts_ + expert];
    for (size_t p = 0; p < parts.size() && left > 0; ++p) {
      const int64_t wanted = parts[p].pairs;
      if (wanted == 0) continue;
      int64_t sum = 0, before = 0;
      for (size_t s = 0; s < ranks_; ++s) {
        if (has[s] == 0) continue;
        sum += has[s];
        const int64_t up_to = wanted == left ? sum : sum * wanted / left;
        given[p * ranks_ + s] = static_cast<int32_t>(up_to - before);
        has[s] -= up_to - before;
        before = up_to;
      }
      left -= wanted;
    }
  }
}

template <typename Id>
void PairDeal::FillIds(const RouterCall& call, const Id* ids, absl::Span<uint16_t> slots) const {
  constexpr int32_t kAllThatCome = std::numeric_limits<int32_t>::max();
  const size_t top_k = static_cast<size_t>(call.top_k);
  // Of each expert, where its next pairs go and how many of them; and which part that is.
  struct Turn {
    int32_t left;
    uint16_t slot;
  };
  std::vector<Turn> turns(experts_);
  std::vector<size_t> part_of_expert(experts_);
  for (size_t e = 0; e < experts_; ++e) turns[e] = {kAllThatCome, split_.parts(e)[0].slot};
  uint16_t* slot = slots.data();
  for (size_t source = 0; source < ranks_; ++source) {
    if (call.begin[source] == call.end[source]) continue;
    // To the first part from `part` on to which the source gives any.
    const auto turn_to = [&](size_t expert, size_t part) {
      const absl::Span<const ReplicaSplit::Part> parts = split_.parts(expert);
      while (part < parts.size() && given(expert, part, source) == 0) ++part;
      part_of_expert[expert] = part;
      if (part < parts.size()) turns[expert] = {given(expert, part, source), parts[part].slot};
    };
    for (const uint32_t expert : split_.replicated()) turn_to(expert, 0);
    for (int32_t token = call.begin[source]; token < call.end[source]; ++token, slot += top_k) {
      const Id* chosen = ids + static_cast<size_t>(token) * top_k;
      const size_t valid = static_cast<size_t>(call.valid(token));
      for (size_t k = 0; k < valid; ++k) {
        Turn& turn = turns[chosen[k]];
        slot[k] = turn.slot;
        if (--turn.left == 0) turn_to(chosen[k], part_of_expert[chosen[k]] + 1);
      }
    }
  }
}

void PairDeal::Fill(const RouterCall& call, absl::Span<uint16_t> slots) const {
  ReadIds(call, [&](const auto* ids) { FillIds(call, ids, slots); });
}

}  // namespace epsim
