#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// TensorRT-LLM's one-sided all-to-all: a rank puts one copy of a token into the symmetric memory of each rank that
// holds one of its experts; to combine, it gets the results from there and sums them.  With D[s, d] the tokens of rank
// s with an expert on rank d != s, K top_k and q and c bytes of a dispatched and of a combined activation:
//   dispatch bytes[s, d] = D[s, d] * (q + 8 K)   with the token's experts and weights
//   combine  bytes[d, s] = D[s, d] * c           c = 2 H in bf16, H in fp8 (fp8_combine: one scale for all)
// Tokens travel in any format.  Load statistics ride along with the tokens (4 B per expert and pair of ranks, which are
// not counted).
//
// Feasible (TensorRT-LLM's NVLinkOneSided): all ranks in one NVLink domain, at most 128; at most 8 experts a token.
// Any number of tokens, of chunks, and of experts a rank.
//
// SMs: none are reserved.  Its kernels, a block a token, share the GPU with what runs beside them; what they take from
// it is not modelled.
// Buffers: R max_tokens_per_rank (4 H + 8 K), a place for each token of each rank, coming and going
// (calculate_required_workspace_size; its few counters are left out).
absl::StatusOr<std::unique_ptr<Communication>> NewNvlinkOneSided(const NvlinkOneSidedCommunication& config,
                                                                 const CommunicationSetup& setup,
                                                                 const LibraryTiming& own);

}  // namespace epsim
