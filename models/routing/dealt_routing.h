// The routing of a batch whose replicas are chosen token by token: the choice fills in a slot for every token-expert
// pair, and what is counted are those slots.
#pragma once

#include <cstdint>
#include <memory>

#include "models/routing/token_routing.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

// A range of a batch is a call of the choice; `random` is RouterCall's.  Goes by the placement as it is when a layer is
// counted.  `placement` and `choice` must outlive the routing.
std::unique_ptr<TokenRouting> NewDealtRouting(const Placement& placement, const PerCallReplicaChoice& choice,
                                              uint64_t random, const RoutingDetail& detail = {});

}  // namespace epsim
