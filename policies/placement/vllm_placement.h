// vLLM's balancer, its policy "default": the three steps of DeepSeek's EPLB in float64, and then experts that stay on a
// rank are put back into the slots they had there, so that no weights are copied for them.
//
// Equal to rebalance_experts() of vllm distributed/eplb/policy/default.py (02c1119c).  Weights are float32 and so are
// their sums over groups (in order of experts); load per replica and loads of packs are float64.  Where the reference
// leaves the order of equal weights to its sort, the lower index comes first.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// The last step, for the slots of one rank: an expert of `placed` that `old` holds goes into the slot it has there, the
// first match for each old slot in turn; the others fill the free slots in their order.  Both [slots of the rank].
void KeepSlots(absl::Span<const LogicalExpert> old, absl::Span<LogicalExpert> placed);

// Places by the total load of the window, rounded to float32; KeepSlots() against request.previous where that has the
// same shape.  Packs groups onto nodes where the nodes divide them; nodes that do not divide the ranks count as one.
// replicas() lists an expert's slots in ascending order.  No state.
// Fails where groups are packed and do not divide the experts.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewVllmPlacement(const VllmPlacement& config,
                                                                  const PlacementShape& shape);

}  // namespace epsim
