// EPLB for experts of unequal cost: an expert counts not only for its tokens but for the time that they take, as a
// profiler has measured it.  Where all experts take the same per token, their weights are EPLB's up to rounding.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// Places as FillByEplb by these weights, rounded to float32.  In each layer, with t[e] the tokens of the window,
// c[e] = t[e] * request.profile->time_per_token[e], and T and C their sums over e:
//   w[e] = (1 - alpha) * t[e] + alpha * T * (c[e] / C)
// which is T times (1 - alpha) * (share of the tokens) + alpha * (share of the compute time).  With alpha 0 the weights
// are EPLB's own, to the bit.  Without a profile (nothing has been measured yet), and in a layer whose C is 0, w = t.
// No state.
//
// compute_aware ignores nodes and groups (EplbPlacement::GLOBAL).  compute_aware_hierarchical packs groups onto nodes
// first where the nodes divide the groups, and else is the same (EplbPlacement::AUTO).
// Fails on an alpha outside [0, 1] and as CheckEplbShape; Place fails where a weight is more than a float32 can hold.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewComputeAwarePlacement(const ComputeAwarePlacement& config,
                                                                          const PlacementShape& shape);
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewComputeAwareHierarchicalPlacement(
    const ComputeAwarePlacement& config, const PlacementShape& shape);

}  // namespace epsim
