// Monte-Carlo load on a CUDA GPU.
#pragma once

#include <cuda_runtime_api.h>

#include "absl/status/status.h"
#include "models/kernels/sampled_load.h"

namespace epsim {

// SampleActiveExperts() on the device: the same batches, the same sums.  sums: in its memory, [2]: most_active and
// squares.  No workspace, no waiting; can be captured in a graph.  Fails as CanImplement does, and where a launch
// fails.
absl::Status LaunchSampledLoad(const SampledLoadOptions& options, unsigned long long* sums, cudaStream_t stream);

}  // namespace epsim
