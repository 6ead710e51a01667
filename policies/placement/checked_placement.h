// Stands before a placement policy and refuses requests that no policy could serve, so that none has to look.
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

// `goes_by_load`: a window without rows is refused.
std::unique_ptr<PlacementPolicy> NewCheckedPlacement(std::unique_ptr<PlacementPolicy> policy, bool goes_by_load,
                                                     const PlacementShape& shape);

}  // namespace epsim
