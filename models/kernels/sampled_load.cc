#include "models/kernels/sampled_load.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_reduce.h>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/sampled_batch.h"

namespace epsim {

absl::Status CanImplement(const SampledLoadOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("sampled load: ", parts...));
  };
  if (options.batches < 0 || options.batches > int64_t{1} << 40) {
    return error(options.batches, " batches; 0 to 2^40 would fit");
  }
  if (options.tokens < 0) return error(options.tokens, " tokens");
  if (options.experts < 1 || options.experts > kMostSampledLoadExperts) {
    return error(options.experts, " experts; 1 to ", kMostSampledLoadExperts, " would fit");
  }
  if (options.top_k < 1 || options.top_k > options.experts) {
    return error("top_k of ", options.top_k, " experts; 1 to ", options.experts, " would fit");
  }
  if (options.chips < 1) return error(options.chips, " chips; 1 or more would fit");
  return absl::OkStatus();
}

absl::Status SampleActiveExperts(const SampledLoadOptions& options, ActiveSums* sums) {
  RETURN_IF_ERROR(CanImplement(options));
  const uint32_t experts = static_cast<uint32_t>(options.experts), threshold = -experts % experts;
  constexpr int64_t kGrain = 1024;
  *sums = tbb::parallel_reduce(
      tbb::blocked_range<int64_t>(0, options.batches, kGrain), ActiveSums{},
      [&](const tbb::blocked_range<int64_t>& range, ActiveSums part) {
        uint32_t all[kMostSampledLoadExperts / 32], own[kMostSampledLoadExperts / 32];
        for (int64_t batch = range.begin(); batch < range.end(); ++batch) {
          const uint64_t most = static_cast<uint64_t>(MostActiveOfBatch(options, batch, threshold, {all, 1}, {own, 1}));
          part.most_active += most;
          part.squares += most * most;
        }
        return part;
      },
      [](const ActiveSums& a, const ActiveSums& b) {
        return ActiveSums{a.most_active + b.most_active, a.squares + b.squares};
      });
  return absl::OkStatus();
}

}  // namespace epsim
