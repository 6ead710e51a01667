#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// DeepEP's low-latency kernels, for decode: one copy of a token for each of its experts, straight to the rank that owns
// it, into a place of its own; nothing is de-duplicated and nothing forwarded.  With P[s, d] the token-expert pairs of
// rank s on rank d != s and q and c bytes of a dispatched and of a combined activation:
//   dispatch bytes[s, d] = P[s, d] * (q + 16)   16 B say which token it is
//   combine  bytes[d, s] = P[s, d] * c
// (DeepEP csrc/kernels/internode_ll.cu).  Inside a node copies go over NVLink; with rdma_only over the NICs, as kernels
// before June 2025 did.  Tokens travel in bf16, in fp8 with block scales or in NVFP4, results in bf16, fp8 or NVFP4
// (TensorRT-LLM's low-precision combine).
//
// Feasible: at most max_tokens_per_rank tokens a rank in one exchange, and all tokens of a layer in one exchange;
// hidden sizes that the kernels are built for (csrc/kernels/launch.cuh, SWITCH_HIDDEN, and TensorRT-LLM's
// DeepEPLowLatency.SUPPORTED_HIDDEN_SIZES); at most 11 experts a token (internode_ll.cu, kNumMaxTopK).
//
// SMs: none are held.  The kernels hand copies to the NICs and to the copy units of a GPU, and a hook receives
// (DeepEP README, "overlapping without any SM occupation").
//
// Buffers (LowLatencyLayout, csrc/config.hpp), with M = max_tokens_per_rank, S slots, H hidden:
//   m_d = 16 + max(2 H, H + 4 (H / 128)),  m_c = 4 (H / 128) + 2 H
//   2 (max(M m_d, S M m_c) + S M max(m_d, m_c) + to128(4 S))
absl::StatusOr<std::unique_ptr<Communication>> NewDeepEpLowLatency(const DeepEpLowLatencyCommunication& config,
                                                                   const CommunicationSetup& setup,
                                                                   const LibraryTiming& own);

Bytes DeepEpLowLatencyBuffers(int64_t hidden, int64_t slots, int64_t max_tokens_per_rank);

}  // namespace epsim
