// Co-occurrence on a CUDA GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "absl/status/status.h"
#include "models/kernels/co_occurrence.h"

namespace epsim {

// CountCoOccurrence() on the device: pointers to its memory.  No workspace, no waiting; can be captured in a graph.
// Fails as CanImplement does, and where a launch fails.
absl::Status LaunchCoOccurrence(const CoOccurrenceOptions& options, const int32_t* ids, int32_t* counts,
                                cudaStream_t stream);

}  // namespace epsim
