// Monte-Carlo load on a GPU: a thread for each batch, whose two sets of experts are in shared memory, a word of all
// threads next to one another.
#pragma once

#include <algorithm>

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/device.cuh"
#include "models/kernels/sampled_batch.h"
#include "models/kernels/sampled_load.h"

namespace epsim {

inline constexpr int kSampleThreads = 128;
inline constexpr int64_t kMostSampleBlocks = 4096;  // Threads go on with the next batch beyond.

// sums: [2], zeros before: most_active and squares of ActiveSums.  Shared memory: [2, words, threads].
__global__ void __launch_bounds__(kSampleThreads)
    SampledLoadKernel(SampledLoadOptions options, uint32_t threshold, unsigned long long* __restrict__ sums) {
  uint32_t* const words = SharedMemory<uint32_t>();
  const int of_set = (options.experts + 31) / 32 * kSampleThreads;
  const ExpertBits all{words + threadIdx.x, kSampleThreads}, own{words + of_set + threadIdx.x, kSampleThreads};
  unsigned long long sum = 0, squares = 0;
  for (int64_t batch = int64_t{blockIdx.x} * kSampleThreads + threadIdx.x; batch < options.batches;
       batch += int64_t{gridDim.x} * kSampleThreads) {
    const unsigned long long most =
        static_cast<unsigned long long>(MostActiveOfBatch(options, batch, threshold, all, own));
    sum += most;
    squares += most * most;
  }
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    sum += __shfl_xor_sync(kAllLanes, sum, lanes);
    squares += __shfl_xor_sync(kAllLanes, squares, lanes);
  }
  if (LaneOfThread() == 0) {
    atomicAdd(sums, sum);
    atomicAdd(sums + 1, squares);
  }
}

// What the kernel does is in sampled_load.h.  sums: the device's, two numbers.
template <typename Stream>
absl::Status EnqueueSampledLoad(const Stream& stream, const SampledLoadOptions& options, unsigned long long* sums) {
  RETURN_IF_ERROR(CanImplement(options));
  RETURN_IF_ERROR(stream.Fill("sampled load", sums, 0, 2 * sizeof(unsigned long long)));
  const uint32_t experts = static_cast<uint32_t>(options.experts);
  const int64_t blocks = std::min(kMostSampleBlocks, DivideUp(options.batches, kSampleThreads));
  const size_t words = static_cast<size_t>(DivideUp(options.experts, 32));
  return stream.Launch("sampled load", &SampledLoadKernel, blocks, kSampleThreads,
                       2 * sizeof(uint32_t) * words * kSampleThreads, options, -experts % experts, sums);
}

}  // namespace epsim
