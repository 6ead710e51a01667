#include "models/kernels/cuda_stream.h"
#include "models/kernels/swiglu.cuh"
#include "models/kernels/swiglu_gpu.h"

namespace epsim {

absl::Status SwigluOnGpu(const SwigluRows& rows, cudaStream_t stream) {
  return EnqueueSwiglu(CudaStream(stream), rows);
}

}  // namespace epsim
