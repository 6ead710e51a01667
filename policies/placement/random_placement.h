// Experts anywhere: what balance chance alone gives, the yardstick for policies that look at load.
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

// Every expert once and, for each redundant slot, one drawn uniformly from all; all of them shuffled over the slots
// (Fisher-Yates), each layer anew, by request.random alone.  Replicas are in ascending slot order.
std::unique_ptr<PlacementPolicy> NewRandomPlacement(const PlacementShape& shape);

}  // namespace epsim
