#include "models/kernels/cuda_stream.h"
#include "models/kernels/expert_choice.cuh"
#include "models/kernels/expert_choice_gpu.h"

namespace epsim {

size_t ExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options) { return FusedExpertChoiceBytes(options); }

absl::Status LaunchExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids, int32_t* counts,
                                float* weights, void* workspace, cudaStream_t stream) {
  return EnqueueExpertChoice(CudaStream(stream), options, scores, ids, counts, weights, workspace);
}

}  // namespace epsim
