#include "models/kernels/cuda_stream.h"
#include "models/kernels/router.cuh"
#include "models/kernels/router_gpu.h"

namespace epsim {

absl::Status LaunchRouter(const RouterOptions& options, const float* logits, const float* bias, int32_t* ids,
                          float* weights, cudaStream_t stream) {
  return EnqueueRouter(CudaStream(stream), options, logits, bias, ids, weights);
}

}  // namespace epsim
