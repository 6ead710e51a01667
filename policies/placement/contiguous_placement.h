// The placement a server starts with before anything was measured: experts in order over the ranks, redundant slots
// repeat the first ones.  SGLang calls it "trivial".
#pragma once

#include <memory>

#include "policies/placement/placement_policy.h"

namespace epsim {

// Slot s holds expert s mod E in every layer.
Placement PlaceContiguously(const PlacementShape& shape);

// Places so whatever the load.
std::unique_ptr<PlacementPolicy> NewContiguousPlacement(const PlacementShape& shape);

}  // namespace epsim
