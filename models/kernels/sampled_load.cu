#include "models/kernels/cuda_stream.h"
#include "models/kernels/sampled_load.cuh"
#include "models/kernels/sampled_load_gpu.h"

namespace epsim {

absl::Status LaunchSampledLoad(const SampledLoadOptions& options, unsigned long long* sums, cudaStream_t stream) {
  return EnqueueSampledLoad(CudaStream(stream), options, sums);
}

}  // namespace epsim
