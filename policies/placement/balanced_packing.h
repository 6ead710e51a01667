// Greedy packing, the step with which the balancers of all serving engines end: items of a weight go into packs that
// hold equally many, the heaviest first, each into the lightest pack that is not full.
//
// Of equal weights the lower index comes first, of equally loaded packs the lower is filled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/winner_tree.h"

namespace epsim {

// Holds the scratch memory from one packing to the next.
class BalancedPacking {
 public:
  // Where each item goes: pack * (items / packs) + number of items already there.  [items], valid until the next call.
  // Loads of packs are sums in the type of the weights, in the order of packing.
  // REQUIRES: packs > 0 divide the items; weights >= 0, finite, and no -0.
  absl::Span<const size_t> Pack(absl::Span<const float> weight, size_t packs);   // O(items * log packs)
  absl::Span<const size_t> Pack(absl::Span<const double> weight, size_t packs);  // O(items * (log items + packs))

 private:
  std::vector<size_t> place_;                  // [items]
  std::vector<size_t> filled_;                 // [packs]
  std::vector<uint64_t> keys_, sort_scratch_;  // [items]
  std::vector<size_t> order_;                  // [items]
  std::vector<double> load_;                   // [packs]
  WinnerTree tree_;
};

}  // namespace epsim
