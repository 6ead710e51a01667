// Co-occurrence on a GPU: a thread for each token and expert of it adds one to the pair with each of the token's
// experts, in global memory.  That is top_k^2 additions a token (64 for top-8), all of whole numbers, so that their
// order does not matter; without a returned value they are done by the L2 cache.
//
// Why not otherwise: counters for 256 x 256 pairs (256 KB) do not fit in shared memory, and a part of them in each
// block means reading the ids again in each, or writing as many counters back as there were additions.  As a product of
// matrices it is 65,536 multiplications a token on 256 experts where 64 additions are asked for; as population counts
// of bit rows, 32,896 pairs * tokens / 32 operations, 16 times the additions.
#pragma once

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/co_occurrence.h"
#include "models/kernels/device.cuh"

namespace epsim {

inline constexpr int kCoOccurrenceThreads = 256;

// counts: [experts, experts], zeros before.
__global__ void __launch_bounds__(kCoOccurrenceThreads)
    CoOccurrenceKernel(CoOccurrenceOptions options, const int32_t* __restrict__ ids, int32_t* __restrict__ counts) {
  const int64_t pair = int64_t{blockIdx.x} * kCoOccurrenceThreads + threadIdx.x;
  const int top_k = options.top_k;
  if (pair >= int64_t{options.tokens} * top_k) return;
  const int32_t expert = __ldg(ids + pair);
  if (expert < 0) return;
  const int32_t* const of_token = ids + (pair - pair % top_k);
  int32_t* const row = counts + static_cast<size_t>(expert) * options.experts;
  for (int k = 0; k < top_k; ++k) {
    const int32_t other = __ldg(of_token + k);
    if (other >= 0) atomicAdd(row + other, 1);
  }
}

// What the kernel does is in co_occurrence.h.  The pointers are the device's.
template <typename Stream>
absl::Status EnqueueCoOccurrence(const Stream& stream, const CoOccurrenceOptions& options, const int32_t* ids,
                                 int32_t* counts) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t experts = static_cast<size_t>(options.experts);
  RETURN_IF_ERROR(stream.Fill("co-occurrence", counts, 0, sizeof(int32_t) * experts * experts));
  return stream.Launch("co-occurrence", &CoOccurrenceKernel,
                       DivideUp(int64_t{options.tokens} * options.top_k, kCoOccurrenceThreads), kCoOccurrenceThreads, 0,
                       options, ids, counts);
}

}  // namespace epsim
