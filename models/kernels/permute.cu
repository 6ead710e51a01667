#include "models/kernels/cuda_stream.h"
#include "models/kernels/permute.cuh"
#include "models/kernels/permute_gpu.h"

namespace epsim {

size_t RowPlanWorkspaceBytes(const PermuteOptions& options) { return RowPlanBytes(options); }

absl::Status LaunchRowPlan(const PermuteOptions& options, const int32_t* slots, int32_t* rows, int32_t* offsets,
                           int32_t* counts, int32_t* tokens_per_rank, void* workspace, cudaStream_t stream) {
  return EnqueueRowPlan(CudaStream(stream), options, slots, rows, offsets, counts, tokens_per_rank, workspace);
}

absl::Status LaunchPermute(const PermuteOptions& options, const RowBytes& bytes, const int32_t* rows,
                           const void* values, const void* scales, void* permuted_values, void* permuted_scales,
                           cudaStream_t stream) {
  return EnqueuePermute(CudaStream(stream), options, bytes, rows, values, scales, permuted_values, permuted_scales);
}

absl::Status LaunchUnpermute(const PermuteOptions& options, int hidden, const int32_t* rows, const float* weights,
                             const uint16_t* permuted, uint16_t* out, cudaStream_t stream) {
  return EnqueueUnpermute(CudaStream(stream), options, hidden, rows, weights, permuted, out);
}

}  // namespace epsim
