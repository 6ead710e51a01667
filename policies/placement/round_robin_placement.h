// Experts dealt to the ranks like cards, so that neighbours in number, which models with expert groups choose together,
// lie on different ranks.  vLLM: expert_placement_strategy "round_robin".
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

// Slot i of rank r holds expert (r + i * ranks) mod E in every layer, whatever the load: rank r has r, r + ranks,
// r + 2 * ranks..., and once every expert is dealt redundant slots repeat the first ones.  (vLLM falls back to its
// linear order where slots are redundant.)
std::unique_ptr<PlacementPolicy> NewRoundRobinPlacement(const PlacementShape& shape);

}  // namespace epsim
