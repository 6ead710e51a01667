#include "models/kernels/clock/empty_kernel.h"
#include "models/kernels/cuda_stream.h"

namespace epsim {
namespace {

__global__ void EmptyKernel() {}

}  // namespace

absl::Status LaunchEmptyKernel(cudaStream_t stream) {
  return CudaStream(stream).Launch("an empty kernel", EmptyKernel, 1, 32, 0);
}

}  // namespace epsim
