// A routing policy by a shared library from outside epsim.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/plugin/plugin.pb.h"
#include "policies/routing/routing_policy.h"

namespace epsim {

// Tokens go to the experts that the library's route names (EpsimRoutingRole, epsim_plugin.h), in the layers that its
// begin_step leaves on.
// Fails if the library cannot be loaded, has no routing or refuses options or shape.  status() fails if route does, or
// if it names an expert that does not exist or one twice for a token; of several failures of a step it is the one in
// the first layer.
absl::StatusOr<std::unique_ptr<RoutingPolicy>> NewPluginRouting(const Plugin& config, const RoutingShape& shape);

}  // namespace epsim
