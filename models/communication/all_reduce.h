#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// vLLM's expert_map: the ranks share all tokens from the start (their attention is tensor-parallel), each computes its
// experts for all of them, and one all-reduce sums the results.  There is no dispatch; combine reduces
//   tokens of all ranks * 2 H bytes   (bf16)
// on the links and in the time of nccl_collective.h.  Always feasible.
//
// Buffers: the channels of NCCL; it reduces in place.
absl::StatusOr<std::unique_ptr<Communication>> NewAllReduce(const AllReduceCommunication& config,
                                                            const CommunicationSetup& setup, const LibraryTiming& own);

}  // namespace epsim
