// vllm-ascend's "swift balancer" (eplb_policy_type 2, its default): goes out from the placement in force and transfers
// few experts.  Of each expert one copy stays where it is; the other slots are decided anew; then experts of the
// hottest rank are exchanged for those of cooler ones.
//
// One layer, w[e] being the load of expert e in the window:
//   1. Left alone if the most loaded rank carries less than imbalance_threshold * (mean rank load), every replica of
//      an expert carrying w[e] / count[e].
//   2. The first slot of each expert is fixed, in slot-major order: the first slot of every rank, by rank, then the
//      second of every rank, and so on.  All other slots are redundant.
//   3. As many times as there are redundant slots, the expert with the largest load per copy (ties: the highest) gets
//      another copy: w = w * (r + 1) / (r + 2) with r redundant copies so far, while r + 1 < ranks.
//   4. The copies, by falling load per copy (ties: the lowest expert), go to the least loaded rank (ties: the lowest)
//      that has a redundant slot free, does not hold the expert, and has had fewer than num_max_com transfers from
//      the rank of the expert's fixed slot.  Each counts as one, even where the rank held that expert before.
//   5. Slots still open, rank by rank, take the expert with the most load per copy (ties: the highest) that the rank
//      does not hold.
//   6. At most max_swap_times: the hottest rank (ties: the highest) tries the others by ascending load (ties: the
//      lowest).  Of the pairs of experts, one on each, neither on both, the pair that leaves the lowest maximum of the
//      two loads is exchanged if it lowers that by swap_gain * (mean rank load) or more.  Two ranks exchange only
//      while fewer than num_max_com transfers went between them, each way; an expert that came to its rank in steps 4
//      to 6 is not moved again.
//   7. Kept only if the most loaded rank carries less than before.  Slots are aligned to the old layout.
// In the end nothing changes at all unless the hottest loads, summed over the layers asked for, are below
// change_threshold * (what they were).  Layers are ordered by ascending (hottest load after) / (before).
//
// Ours, where descriptions of the reference are silent or its code has no answer:
//   - 5 prefers experts whose transfer keeps to num_max_com, or that the rank held before; where the rank holds every
//     expert already, the one with the most load per copy is repeated;
//   - of equal pairs 6 takes the first in slot order; a mean rank load is that of the layer;
//   - a layer that is not kept counts in the sums as it was; one with empty slots (a rank came back) always changes;
//   - redundancy within a node (is_node_redundant, off by default there) is not modelled.
// No state but the placement in force.  Scaling the load by a power of two changes nothing.  Which slots are redundant
// never changes much, so the placement to start from matters: with all of them on a few ranks only those get copies.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// With every default filled in.  Fails on thresholds that are negative or not finite, and on no transfers.
absl::StatusOr<SwiftPlacement> CompleteSwiftPlacement(const SwiftPlacement& config);

// Any shape will do.  O(layers * (slots * ranks + swaps * ranks * slots per rank^2)).
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewSwiftPlacement(const SwiftPlacement& config,
                                                                   const PlacementShape& shape);

}  // namespace epsim
