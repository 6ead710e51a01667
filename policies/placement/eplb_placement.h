// DeepSeek's expert-parallel load balancer: gives redundant slots to the experts with the most load per replica, then
// packs replicas onto ranks so that every rank holds as many slots and about as much load.  Where the model routes by
// expert groups it first packs groups onto nodes, so that a token's experts stay on few nodes.
//
// Equal to rebalance_experts() of deepseek-ai/EPLB eplb.py (d52c72d), in float32 as there.  Where the reference leaves
// the order of equal weights to its sort, the lower index comes first (torch.sort with stable=True).
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/placement/placement_draft.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// Whether EPLB can serve `shape`: the global policy takes any nodes and groups (it ignores both); the hierarchical one
// needs nodes that divide the groups and the ranks, and groups that divide the experts.
// REQUIRES: what NewPlacementPolicy demands of every shape.
absl::Status CheckEplbShape(const PlacementShape& shape, EplbPlacement::Mode mode);

// `weight`: load of each expert, [layers, experts], finite and >= 0.  replicas() lists an expert's slots in the order
// of their creation.  REQUIRES: CheckEplbShape(shape, mode) is OK.
// O(layers * (slots * log ranks + (slots - experts) * log experts)).
Placement Eplb(absl::Span<const float> weight, const PlacementShape& shape, EplbPlacement::Mode mode);
// The same for the layers of a draft.
void FillByEplb(absl::Span<const float> weight, const PlacementShape& shape, EplbPlacement::Mode mode,
                PlacementDraft* draft);

// Places by the total load of the window, rounded to float32.  No state.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewEplbPlacement(const EplbPlacement& config,
                                                                  const PlacementShape& shape);

}  // namespace epsim
