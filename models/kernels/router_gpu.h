// The router on a CUDA GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "models/kernels/router.h"

namespace epsim {

// RouteTokens() on the device, with the same bits: pointers to its memory, aligned to 16 bytes; bias may be null.  No
// workspace, no waiting; can be captured in a graph.  Fails as CanImplement does, and where the launch fails.
absl::Status LaunchRouter(const RouterOptions& options, const float* logits, const float* bias, int32_t* ids,
                          float* weights, cudaStream_t stream);

}  // namespace epsim
