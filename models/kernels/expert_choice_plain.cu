#include <cub/device/device_segmented_radix_sort.cuh>

#include "models/kernels/cuda_stream.h"
#include "models/kernels/expert_choice_gpu.h"
#include "models/kernels/expert_choice_plain.cuh"

namespace epsim {
namespace {

// offset[i] = i * step, i < count.
__global__ void OffsetsKernel(int count, int step, int32_t* offset) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i < count) offset[i] = i * step;
}

class SortingStream : public CudaStream {
 public:
  using CudaStream::CudaStream;

  size_t SortBytes(int rows, int columns) const {
    size_t bytes = 0;
    const cudaError_t error = cub::DeviceSegmentedRadixSort::SortPairsDescending(
        nullptr, bytes, static_cast<const uint32_t*>(nullptr), static_cast<uint32_t*>(nullptr),
        static_cast<const int32_t*>(nullptr), static_cast<int32_t*>(nullptr), rows * columns, rows,
        static_cast<const int32_t*>(nullptr), static_cast<const int32_t*>(nullptr));
    return error == cudaSuccess ? OffsetBytes(rows) + bytes : 0;
  }

  absl::Status SortRows(int rows, int columns, const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values,
                        int32_t* sorted_values, void* workspace, size_t workspace_bytes) const {
    constexpr const char* kWhat = "plain expert choice: sort";
    if (workspace_bytes <= OffsetBytes(rows)) return absl::InternalError("plain expert choice: no memory to sort in");
    int32_t* const offset = static_cast<int32_t*>(workspace);
    constexpr int kThreads = 256;
    RETURN_IF_ERROR(
        Launch(kWhat, &OffsetsKernel, (rows + kThreads) / kThreads, kThreads, 0, rows + 1, columns, offset));
    size_t bytes = workspace_bytes - OffsetBytes(rows);
    return CudaStatus(cub::DeviceSegmentedRadixSort::SortPairsDescending(
                          static_cast<unsigned char*>(workspace) + OffsetBytes(rows), bytes, keys, sorted_keys, values,
                          sorted_values, rows * columns, rows, offset, offset + 1, 0, 32, stream()),
                      kWhat);
  }

 private:
  static size_t OffsetBytes(int rows) { return (sizeof(int32_t) * static_cast<size_t>(rows + 1) + 255) / 256 * 256; }
};

}  // namespace

size_t PlainExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options) {
  return PlainExpertChoiceBytes(SortingStream(cudaStream_t{}), options);
}

absl::Status LaunchPlainExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids,
                                     int32_t* counts, float* weights, void* workspace, cudaStream_t stream) {
  return EnqueuePlainExpertChoice(SortingStream(stream), options, scores, ids, counts, weights, workspace);
}

}  // namespace epsim
