// The launchers of the routing kernels for the stand-in of a GPU: their twins.
#include "engine/check.h"
#include "models/kernels/co_occurrence_gpu.h"
#include "models/kernels/expert_choice_gpu.h"
#include "models/kernels/permute_gpu.h"
#include "models/kernels/router_gpu.h"
#include "models/kernels/sampled_load_gpu.h"
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

size_t RowPlanWorkspaceBytes(const PermuteOptions& /*options*/) { return 1024; }

absl::Status LaunchRowPlan(const PermuteOptions& options, const int32_t* slots, int32_t* rows, int32_t* offsets,
                           int32_t* counts, int32_t* tokens_per_rank, void* workspace, cudaStream_t stream) {
  if (workspace == nullptr) return absl::InvalidArgumentError("no workspace");
  Enqueue(stream, 2, [=] {
    const RowPlan plan = {Array(rows, options.tokens, options.top_k), Array(offsets, 1, options.slots + 1),
                          Array(counts, 1, options.slots), Array(tokens_per_rank, 1, options.ranks)};
    EPSIM_CHECK(PlanRows(options, Array(slots, options.tokens, options.top_k), plan).ok());
  });
  return absl::OkStatus();
}

absl::Status LaunchPermute(const PermuteOptions& options, const RowBytes& bytes, const int32_t* rows,
                           const void* values, const void* scales, void* permuted_values, void* permuted_scales,
                           cudaStream_t stream) {
  const auto size = static_cast<int64_t>(bytes.values), scale_size = static_cast<int64_t>(bytes.scales);
  const int64_t most = MostRows(options);
  Enqueue(stream, 2 + CopyMicroseconds(static_cast<double>((options.tokens + most) * size)), [=] {
    EPSIM_CHECK(PermuteRows(options, bytes, Array(rows, options.tokens, options.top_k),
                            Array(static_cast<const uint8_t*>(values), options.tokens, size),
                            Array(static_cast<const uint8_t*>(scales), options.tokens, scale_size),
                            Array(static_cast<uint8_t*>(permuted_values), most, size),
                            Array(static_cast<uint8_t*>(permuted_scales), most, scale_size))
                    .ok());
  });
  return absl::OkStatus();
}

absl::Status LaunchUnpermute(const PermuteOptions& options, int hidden, const int32_t* rows, const float* weights,
                             const uint16_t* permuted, uint16_t* out, cudaStream_t stream) {
  const int64_t most = MostRows(options);
  Enqueue(stream, 2 + CopyMicroseconds(2.0 * static_cast<double>((options.tokens + most) * hidden)), [=] {
    EPSIM_CHECK(UnpermuteRows(options, hidden, Array(rows, options.tokens, options.top_k),
                              Array(weights, options.tokens, options.top_k), Array(permuted, most, hidden),
                              Array(out, options.tokens, hidden))
                    .ok());
  });
  return absl::OkStatus();
}

absl::Status LaunchCoOccurrence(const CoOccurrenceOptions& options, const int32_t* ids, int32_t* counts,
                                cudaStream_t stream) {
  Enqueue(stream, 2 + options.tokens * 1e-3, [=] {
    EPSIM_CHECK(CountCoOccurrence(options, Array(ids, options.tokens, options.top_k),
                                  Array(counts, options.experts, options.experts))
                    .ok());
  });
  return absl::OkStatus();
}

absl::Status LaunchSampledLoad(const SampledLoadOptions& options, unsigned long long* sums, cudaStream_t stream) {
  Enqueue(stream, 2 + static_cast<double>(options.batches) * 1e-3, [=] {
    ActiveSums result;
    EPSIM_CHECK(SampleActiveExperts(options, &result).ok());
    sums[0] = result.most_active;
    sums[1] = result.squares;
  });
  return absl::OkStatus();
}

}  // namespace epsim
