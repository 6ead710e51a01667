// Every token goes to the experts that the router chose for it: the trace as captured.
#pragma once

#include <memory>

#include "policies/routing/routing_policy.h"

namespace epsim {

// Routes no layer anew.
std::unique_ptr<RoutingPolicy> NewTokenChoice();

}  // namespace epsim
