// SGLang's elasticity_aware: EPLB's global policy on the ranks that are there.  Source: sglang
// eplb_algorithms/elasticity_aware.py (8db677ee), whose hierarchical variant is never chosen
// (eplb_algorithms/__init__.py, 046f88cb).  That every other policy, too, places on the survivors alone is
// survivors_placement.h.
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewElasticityAwarePlacement(const PlacementShape& shape);

}  // namespace epsim
