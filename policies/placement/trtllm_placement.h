// TensorRT-LLM's balancer: replicas to the experts with the most load per replica, then replicas onto ranks, the
// heaviest first.  It knows neither nodes nor expert groups, and keeps no slot.
//
// Equal to doReplication() and doPlacement() of TensorRT-LLM moeLoadBalancer.cpp (0d919a4f), in double as there.  Every
// order is total there, and not that of DeepSeek's EPLB:
//   * A replica goes to the largest tokens / replicas, of equal ones to the highest expert.  Without redundant slots
//   every
//     expert has one replica; without any tokens the slots are dealt evenly, one more each to the first S mod E
//     experts.
//   * Replicas by falling tokens / replicas, then ascending expert, go to the rank with the least load that has a free
//     slot, the lowest of equal ones; also where each rank has but one slot.
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

// Places by the total load of the window, rounded to float32.  replicas() lists an expert's slots in ascending order.
// No state.
std::unique_ptr<PlacementPolicy> NewTrtllmPlacement(const PlacementShape& shape);

}  // namespace epsim
