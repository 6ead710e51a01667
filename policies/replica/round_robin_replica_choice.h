// TensorRT-LLM's replica choice: the replicas of an expert take turns, within blocks of token-expert pairs.
#pragma once

#include <memory>

#include "policies/replica/replica_choice.h"

namespace epsim {

// Each source rank numbers the pairs of a call token by token, k by k, and cuts them into blocks of 1,024, one for each
// thread block of its kernel.  A pair takes of the n replicas of its expert, in the placement's order, number
//   (pairs of this expert before it in its block + number of the block + (offset_by_ep_rank ? source rank : 0)) mod n.
// Places in the array after a token's valid ids belong to the block, but to no expert.  Each piece of a batch that is
// exchanged by itself is a call, and begins with block 0.
// Source: TensorRT-LLM moeLoadBalanceKernels.cu, moeComputeRouteKernel (replicas there are in ascending slot order).
// Share(): equal parts.
std::unique_ptr<PerCallReplicaChoice> NewRoundRobinReplicaChoice(bool offset_by_ep_rank);

}  // namespace epsim
