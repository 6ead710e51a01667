// Permute on a CUDA GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "models/kernels/permute.h"

namespace epsim {

// PlanRows(), PermuteRows() and UnpermuteRows() on the device, with the same bits: pointers to its memory, aligned to
// 16 bytes, shapes as there.  No waiting; can be captured in a graph.  Fail as CanImplement does, and where a launch
// fails.
size_t RowPlanWorkspaceBytes(const PermuteOptions& options);
absl::Status LaunchRowPlan(const PermuteOptions& options, const int32_t* slots, int32_t* rows, int32_t* offsets,
                           int32_t* counts, int32_t* tokens_per_rank, void* workspace, cudaStream_t stream);
// scales and permuted_scales may be null where bytes.scales is 0.
absl::Status LaunchPermute(const PermuteOptions& options, const RowBytes& bytes, const int32_t* rows,
                           const void* values, const void* scales, void* permuted_values, void* permuted_scales,
                           cudaStream_t stream);
absl::Status LaunchUnpermute(const PermuteOptions& options, int hidden, const int32_t* rows, const float* weights,
                             const uint16_t* permuted, uint16_t* out, cudaStream_t stream);

}  // namespace epsim
