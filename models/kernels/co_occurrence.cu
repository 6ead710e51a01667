#include "models/kernels/co_occurrence.cuh"
#include "models/kernels/co_occurrence_gpu.h"
#include "models/kernels/cuda_stream.h"

namespace epsim {

absl::Status LaunchCoOccurrence(const CoOccurrenceOptions& options, const int32_t* ids, int32_t* counts,
                                cudaStream_t stream) {
  return EnqueueCoOccurrence(CudaStream(stream), options, ids, counts);
}

}  // namespace epsim
