// SGLang's "static" dispatch: every source rank always sends an expert's tokens to the same replica, a near one where
// there is one, and the ranks that have none near share the replicas fairly.
#pragma once

#include <memory>

#include "policies/replica/replica_choice.h"

namespace epsim {

// For an expert and a source rank, the first of these that exists:
// 1. the first replica, in the placement's order, on the source rank;
// 2. a replica on the same node: those of the node are dealt to the ranks of the node that have none themselves;
// 3. any replica: all are dealt to the ranks whose node has none.
// A deal of n replicas to k ranks gives each replica floor(k / n) or ceil(k / n) of them, at random which.
// Random numbers are drawn layer by layer, in it expert by expert, in it node by node and then for the third rule;
// none where there is one replica to choose from.
// Source: sglang srt/eplb/expert_location.py, compute_logical_to_rank_dispatch_physical_map.
// REQUIRES of Choose(): nodes divide ranks, ranks divide slots, and slots number at most 2^16.
std::unique_ptr<FixedReplicaChoice> NewStaticReplicaChoice();

}  // namespace epsim
