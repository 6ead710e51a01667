// From how many pairs each rank is to compute to the slot of every single pair.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica_split.h"
#include "policies/replica/router_call.h"

namespace epsim {

// Pairs of each source rank and expert.  [ranks, experts]
std::vector<int32_t> CountPairs(const RouterCall& call, int experts);
// Summed over the sources.  [experts]
std::vector<int64_t> SumOverSources(absl::Span<const int32_t> pairs, int experts);

// Of a split, what each source rank gives to each part.
class PairDeal {
 public:
  // `pairs`: of each source rank and expert [ranks, experts], of which the split deals the sums; outlives the deal, as
  // does the split.
  PairDeal(const ReplicaSplit& split, absl::Span<const int32_t> pairs);

  // As many pairs as can be stay on their rank, as many of the others as can be on their node; the rest fill the parts
  // in order, source by source.
  void PreferNear(const PlacementShape& shape);
  // Every source splits an expert's pairs in the proportions of the parts.  Part by part, with q what the part is to
  // get, n what it and the parts after it are to get, and c[s] what source s still has to give:
  //   given[s] = floor(C[s] * q / n) - floor(C[s - 1] * q / n),   C[s] = c[0] + ... + c[s],
  // so that both the sources' and the parts' sums are exact.
  void InProportion();

  // Fills slots [tokens of the call, top_k]: in each source, an expert's first pairs go to its first part.
  void Fill(const RouterCall& call, absl::Span<uint16_t> slots) const;

  // What `source` gives to the `part`-th part of an expert in split.replicated().
  int32_t given(size_t expert, size_t part, size_t source) const {
    return given_[(first_row_[expert] + part) * ranks_ + source];
  }

 private:
  template <typename Id>
  void FillIds(const RouterCall& call, const Id* ids, absl::Span<uint16_t> slots) const;

  const ReplicaSplit& split_;
  const absl::Span<const int32_t> pairs_;
  const size_t ranks_, experts_;
  std::vector<size_t> first_row_;  // [experts], of given_; of no meaning unless the expert is in split.replicated().
  std::vector<int32_t> given_;     // [parts of replicated experts, sources]
};

}  // namespace epsim
