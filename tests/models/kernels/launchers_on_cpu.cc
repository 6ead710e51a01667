// The launchers of the routing kernels for the stand-in of a GPU: their twins.
#include "engine/check.h"
#include "models/kernels/expert_choice_gpu.h"
#include "models/kernels/router_gpu.h"
#include "tests/models/kernels/gpu_on_cpu.h"

namespace epsim {
namespace {

using gpu_on_cpu::CopyMicroseconds;
using gpu_on_cpu::Enqueue;

template <typename T>
absl::Span<T> Array(T* data, int64_t rows, int64_t columns) {
  return absl::Span<T>(data, data == nullptr ? 0 : static_cast<size_t>(rows * columns));
}

}  // namespace

size_t ExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& /*options*/) { return 1024; }
size_t PlainExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& /*options*/) { return 1024; }

absl::Status LaunchExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids, int32_t* counts,
                                float* weights, void* workspace, cudaStream_t stream) {
  if (workspace == nullptr) return absl::InvalidArgumentError("no workspace");
  const int64_t tokens = options.tokens, experts = options.experts, top_k = options.top_k;
  Enqueue(stream, 2 + CopyMicroseconds(4.0 * static_cast<double>(tokens * experts)), [=] {
    EPSIM_CHECK(ChooseByExperts(options, Array(scores, tokens, experts), Array(ids, tokens, top_k),
                                Array(counts, tokens, 1), Array(weights, tokens, top_k))
                    .ok());
  });
  return absl::OkStatus();
}
absl::Status LaunchPlainExpertChoice(const ExpertChoiceOptions& options, const float* scores, int32_t* ids,
                                     int32_t* counts, float* weights, void* workspace, cudaStream_t stream) {
  return LaunchExpertChoice(options, scores, ids, counts, weights, workspace, stream);
}

absl::Status LaunchRouter(const RouterOptions& options, const float* logits, const float* bias, int32_t* ids,
                          float* weights, cudaStream_t stream) {
  const int64_t tokens = options.tokens, experts = options.experts, top_k = options.top_k;
  Enqueue(stream, 2 + CopyMicroseconds(4.0 * static_cast<double>(tokens * experts)), [=] {
    EPSIM_CHECK(RouteTokens(options, Array(logits, tokens, experts), Array(bias, 1, experts), Array(ids, tokens, top_k),
                            Array(weights, tokens, top_k))
                    .ok());
  });
  return absl::OkStatus();
}

}  // namespace epsim
