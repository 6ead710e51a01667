// Where kernels are launched: a CUDA stream.  The launch sequences (Enqueue... in the .cuh files) are templates over
// what launches, so that the emulator of the tests executes the same sequences.
#pragma once

#ifndef __CUDACC__
#error "for .cu files"
#endif

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/cuda_status.h"

namespace epsim {

class CudaStream {
 public:
  explicit CudaStream(cudaStream_t stream) : stream_(stream) {}

  // `blocks` may be 0: nothing is launched.  What goes wrong while the kernel runs is told by a later call.
  template <typename... Parameters, typename... Arguments>
  absl::Status Launch(std::string_view what, void (*kernel)(Parameters...), int64_t blocks, int threads,
                      size_t shared_bytes, Arguments... arguments) const {
    if (blocks == 0) return absl::OkStatus();
    constexpr size_t kWithoutAsking = 48 << 10;
    if (shared_bytes > kWithoutAsking) {
      RETURN_IF_ERROR(
          CudaStatus(cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes)),
                     what));
    }
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(static_cast<unsigned>(blocks));
    config.blockDim = dim3(static_cast<unsigned>(threads));
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream_;
    return CudaStatus(cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...), what);
  }

  // Every byte of `bytes` becomes `value`.
  absl::Status Fill(std::string_view what, void* data, int value, size_t bytes) const {
    if (bytes == 0) return absl::OkStatus();
    return CudaStatus(cudaMemsetAsync(data, value, bytes, stream_), what);
  }

  cudaStream_t stream() const { return stream_; }

 private:
  const cudaStream_t stream_;
};

}  // namespace epsim
