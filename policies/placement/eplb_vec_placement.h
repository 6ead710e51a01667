// SGLang's deepseek_vec: DeepSeek's EPLB for loads that change from step to step.  A redundant slot goes to the expert
// whose extra replica most lowers the peak load, step by step, not the load in all; ranks are then filled in a snake.
//
// Equal to sglang eplb_algorithms/deepseek_vec.py (68836b60), in float32 as there:
//   * score[row, e] = (tokens[row, e] + e * 1e-4) / replicas[e], peak[row] = max over e of score[row, e].  The term in
//   e
//     breaks ties; it is in the score alone.
//   * If e got one replica more, peak[row] would be max(score of every other expert, tokens[row, e] / (replicas[e] +
//   1)).
//     The slot goes to the e with the smallest sum over rows (oldest first) of that, the lowest e of equal ones.
//   * Replicas by falling (sum over rows of tokens) / replicas are laid in rows as wide as there are ranks, every other
//     row from right to left; rank g takes column g from the top.  With one slot a rank they stay in order of creation.
// Hierarchically, groups are first packed onto nodes by their tokens (balanced_packing.h, also where each node gets one
// group), then each node serves its experts alone, e counting them node by node.  The reference leaves the order of
// equal shares and of equal groups to its sort; here the replica that was created first and the lower group come first.
// Its sums of tokens are exact up to 2^24; here they are exact, then rounded to float32.
//
// Scaling all loads scales the score but for the term in e: it may break near ties otherwise.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// Places by the rows of the window.  replicas() lists an expert's slots in the order of their creation.  No state.
// Fails as CheckGroupPacking; nodes that pass it get equal numbers of redundant slots.
// Time per layer: O(rows * experts + redundant slots * rows * (log experts + distinct experts at the peak)).
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewEplbVecPlacement(const EplbVecPlacement& config,
                                                                     const PlacementShape& shape);

}  // namespace epsim
