// SGLang's "dynamic" dispatch: each token goes, for each of its experts, to any replica, all equally likely.
#pragma once

#include <memory>

#include "policies/replica/replica_choice.h"

namespace epsim {

// Of an expert with n replicas, token t of the step takes for its k-th expert the replica
//   floor(n * (h >> 32) / 2^32),   h = mix(mix(mix(random ^ step) ^ layer) ^ (2^32 * k + t)),
// with mix the output of SplitMix64 for a state (Steele, Lea, Flood 2014).  No replica is likelier than another by more
// than 2^-32.  It is the same in whatever pieces a batch is exchanged.
// Source: sglang srt/eplb/expert_location_dispatch.py, which draws an integer below 2^16 modulo n.
// Share(): equal parts.
std::unique_ptr<PerCallReplicaChoice> NewDynamicReplicaChoice();

}  // namespace epsim
