#pragma once

#include <memory>

#include "models/communication/communication.h"
#include "models/timing/library_timing.h"

namespace epsim {

// DeepEP's normal kernels, for prefill and training: a token crosses the network once to each node that holds one of
// its experts, to the GPU with the same place there (its rail peer), which hands it on over NVLink, once to each rank.
// The two legs are one pipelined kernel, so both are in one matrix: a copy that is forwarded does not wait for its own
// first leg there.  With D[s, d] the tokens of rank s that have an
// expert on rank d, N[s, n] those that have one on node n, p(s, n) the rank on node n with the place of s (s itself on
// its own node), H hidden, K top_k, q and c bytes of a dispatched and of a combined activation, and to16 rounding up to
// 16 B:
//   dispatch bytes[s, p(s, n)] += N[s, n] * to16(q + 8 + 8 K)  for each other node n: source rank, experts, weights
//            bytes[p(s, n), d] += D[s, d] * q                  for each node n, and d on n other than p(s, n)
//   combine  bytes[d, p(s, n)] += D[s, d] * c                  the other way round: reduced on the node,
//            bytes[p(s, n), s] += N[s, n] * to16(c + 8 + 4 K)  then over the network
// (DeepEP csrc/kernels/internode.cu, get_num_bytes_per_token).  Tokens travel in bf16, in fp8 with block scales or in
// NVFP4, results in bf16.
//
// Feasible (csrc/kernels/launch.cuh, SWITCH_RANKS and SWITCH_RDMA_RANKS, and TensorRT-LLM's DeepEP strategy): over
// NVLink, on one node with 2, 4 or 8 ranks or on 2, 4, 8 or 16 nodes of 8; experts that the ranks divide; a layer's
// tokens in one exchange.
//
// Buffers (Config::get_nvl_buffer_size_hint and get_rdma_buffer_size_hint, csrc/config.hpp), with C = sms / 2 channels,
// L ranks on each of M nodes, t = 256, 288 or 560 tokens of a channel in flight over NVLink (1, 2 to 8, 16 nodes) and
// u = 140, 128, 140 or 132 over the network (2, 4, 8, 16 nodes: Buffer.get_dispatch_config and get_combine_config),
// each rounded up to 128 B:
//   NVLink   C L (4 (2 M + 3) + t (2 H + 8 + 1024 + 512 + 512))
//   network  C M (4 * 36 + 2 u (2 H + 8 + 1024 + 512 + 512 + 16)) + 2^20, with several nodes
absl::StatusOr<std::unique_ptr<Communication>> NewDeepEpNormal(const DeepEpNormalCommunication& config,
                                                               const CommunicationSetup& setup,
                                                               const LibraryTiming& own);

// C = sms / 2 and so on, as above.
Bytes DeepEpNormalBuffers(int64_t hidden, int sms, int nodes, int ranks_per_node);

}  // namespace epsim
