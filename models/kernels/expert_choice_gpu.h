// Expert choice on a CUDA GPU, twice: fused, and as it is put together from library primitives.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "models/kernels/expert_choice.h"

namespace epsim {

// ChooseByExperts() on the device, with the same bits: pointers to its memory, aligned to 16 bytes.  No waiting; can be
// captured in a graph.  Fails as CanImplement does, and where a launch fails.
size_t ExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options);
absl::Status LaunchExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids, int32_t* counts,
                                float* weights, void* workspace, cudaStream_t stream);

// The same result: transpose, segmented sort (CUB), dense matrix [tokens, experts], fall-back for every token.
size_t PlainExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options);
absl::Status LaunchPlainExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids,
                                     int32_t* counts, float* weights, void* workspace, cudaStream_t stream);

}  // namespace epsim
