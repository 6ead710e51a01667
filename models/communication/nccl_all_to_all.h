#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// Rows sorted by expert, exchanged by NCCL's grouped sends and receives: one copy of a token for each of its experts.
// With P[s, d] the token-expert pairs of rank s on rank d != s, q and c bytes of a dispatched and of a combined
// activation:
//   dispatch bytes[s, d] = P[s, d] * q   after an all-to-all of int64 counts for each expert
//   combine  bytes[d, s] = P[s, d] * c
// on the links and in the time of nccl_collective.h.  Any formats, always feasible.
//
// Buffers: max_tokens_per_rank K (q + c) for the rows that a rank sends and as many that it receives (balanced load; K
// top_k), and the channels of NCCL.
absl::StatusOr<std::unique_ptr<Communication>> NewNcclAllToAll(const NcclAllToAllCommunication& config,
                                                               const CommunicationSetup& setup,
                                                               const LibraryTiming& own);

}  // namespace epsim
