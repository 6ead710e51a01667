// How many of each expert's pairs go to each rank that holds it, so that no rank has too many: the planning of a layer
// by the counts of a batch, before anything is said of single tokens.
//
// A rank's load is the pairs that it computes.  Of an expert that a rank holds several times only the first replica in
// the placement's order is used: a second one would have the weights read twice and lower no load.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

class ReplicaSplit {
 public:
  // A rank that holds an expert.
  struct Part {
    uint16_t slot, rank;
    uint32_t expert;
    int64_t pairs;  // Of the expert's.
  };

  // Of experts on one rank all pairs go there; of the others none are dealt yet.  pairs_of_expert: [experts].
  // REQUIRES: pairs are not negative and add up to less than 2^63.
  ReplicaSplit(const Placement& placement, Layer layer, absl::Span<const int64_t> pairs_of_expert);

  // Deals the experts on several ranks, those with the most pairs first (then the lower expert), pair by pair: each to
  // the rank that has the least load then, the first of these in the placement's order of replicas.  What is dealt
  // before stays, so that a later expert can find its ranks full: a greedy method, not an optimal one.
  // REQUIRES: not called before.
  void DealToLeastLoaded();

  // Moves pairs until the greatest load is the least that there is:
  //   max over sets S of ranks of ceil((pairs of the experts that lie on ranks of S only) / |S|),
  // which is the optimum of the linear program
  //   minimise t,  sum over the parts of e of x = pairs of e,  sum over the parts on r of x <= t,  x >= 0,
  // rounded up.  A set S shows that no t below its term will do (Hall); what attains the maximum is found from below,
  // as in Newton's method: with t a lower bound, pairs move along shortest alternating paths from ranks above t to
  // ranks below it (Edmonds and Karp), and where none is left, the ranks that can be reached from those above t are a
  // set whose pairs have nowhere else to go.  Its term is greater than t and becomes the next bound.
  // REQUIRES: all pairs are dealt.
  void LowerMaximum();

  // The ranks of an expert, in the placement's order of replicas.
  absl::Span<const Part> parts(size_t expert) const {
    return {parts_.data() + first_[expert], first_[expert + 1] - first_[expert]};
  }
  absl::Span<const int64_t> load() const { return load_; }  // [ranks]
  // The pairs of each slot: 0 where it has no part.  REQUIRES: none has 2^32 or more.  [slots]
  void WriteWeights(absl::Span<uint32_t> pairs_of_slot) const;
  // Experts on several ranks that have pairs, the most first.
  absl::Span<const uint32_t> replicated() const { return replicated_; }

 private:
  std::vector<uint32_t> first_;  // [experts + 1], into parts_.
  std::vector<Part> parts_;
  std::vector<int64_t> pairs_of_expert_;
  std::vector<uint32_t> replicated_;
  std::vector<int64_t> load_;
  int64_t most_fixed_ = 0;  // The greatest load by experts that are on one rank.
};

}  // namespace epsim
