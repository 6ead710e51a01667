#pragma once

#include <memory>

#include "models/communication/communication.h"

namespace epsim {

// Token-de-duplicating all-to-all, as fast as the wires.  With n[s, d] the tokens of rank s that have an expert on rank
// d != s:
//   dispatch bytes[s, d] = n[s, d] * bytes of a dispatched token
//   combine  bytes[d, s] = n[s, d] * bytes of a combined token (d sums its experts' results for the token first)
absl::StatusOr<std::unique_ptr<Communication>> NewAllToAll(const AllToAllCommunication& config,
                                                           const CommunicationSetup& setup);

}  // namespace epsim
