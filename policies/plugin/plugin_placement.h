// Placement by a shared library from outside epsim.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"
#include "policies/plugin/plugin.pb.h"

namespace epsim {

// What the library's place makes of each request (EpsimPlacementRole, epsim_plugin.h), which does not see cost and
// co_activation.  Replicas are in ascending slot order.
// Fails if the library cannot be loaded, has no placement or refuses options or shape.  Place() fails if the library
// does or if what it returns is no placement: an expert that does not exist, a slot left empty, an expert without a
// slot. Draws one number for each request.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewPluginPlacement(const Plugin& config, const PlacementShape& shape);

}  // namespace epsim
