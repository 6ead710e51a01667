#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// TensorRT-LLM's two-sided all-to-all: after a prepare step in which ranks tell each other what they will send, blocks
// on both sides move tokens through FIFO channels between every two ranks.  Copies and bytes are those of one-sided:
//   dispatch bytes[s, d] = D[s, d] * (q + 8 K)
//   combine  bytes[d, s] = D[s, d] * c
// with D[s, d] the tokens of rank s with an expert on rank d != s, K top_k, q and c = 2 H bytes of a dispatched and of
// a combined activation.  Tokens travel in any format, results in bf16.  Load statistics ride along with the prepare
// step.
//
// Feasible (TensorRT-LLM's NVLinkTwoSided): all ranks in one NVLink domain; experts that the ranks divide.
//
// SMs: half of the GPU's; 2 g C with g = ceil(R / 8) blocks a channel and C = max(1, (SMs / 2) / (2 g)) channels.
// Buffers: R C * 2^20, four entries of 256 KiB a FIFO (FusedMoeCommunicator, fusedMoeCommKernels.h).
absl::StatusOr<std::unique_ptr<Communication>> NewNvlinkTwoSided(const NvlinkTwoSidedCommunication& config,
                                                                 const CommunicationSetup& setup,
                                                                 const LibraryTiming& own);

}  // namespace epsim
