// A replica choice by a shared library from outside epsim.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/plugin/plugin.pb.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

// For each source rank and expert the replica that the library's choose names (EpsimReplicaRole, epsim_plugin.h).
// Fails if the library cannot be loaded, has no replica choice or refuses the options.  status() fails if the library
// does, or if it names a slot that does not hold the expert.
// Draws one number for each layer.
absl::StatusOr<std::unique_ptr<FixedReplicaChoice>> NewPluginReplicaChoice(const Plugin& config);

}  // namespace epsim
