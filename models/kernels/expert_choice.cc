#include "models/kernels/expert_choice.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/kernels/top_of_row.h"
#include "policies/routing/top_tokens.h"

namespace epsim {
namespace {

constexpr int kBlock = 64;  // Experts whose choice of a token is a word of bits.

// Bit e of the token's word is set if expert first + e took it.  taken: [tokens]
void TakeTokens(const ExpertChoiceOptions& options, const float* scores, int first, uint64_t* taken) {
  thread_local TopTokens top;
  const int experts = std::min(kBlock, options.experts - first);
  top.Take(scores + first, options.experts, options.tokens, experts, options.capacity);
  for (int expert = 0; expert < experts; ++expert) {
    const uint64_t* const keys = top.of(expert);
    for (int i = 0; i < options.capacity; ++i) taken[IndexOfKey(keys[i])] |= uint64_t{1} << expert;
  }
}

// One token.  taken: its words, `stride` apart.
void ListExperts(const ExpertChoiceOptions& options, const float* scores, const uint64_t* taken, size_t stride,
                 int32_t* ids, int32_t* count, float* weights) {
  int found = 0;
  int32_t all[kMostExpertChoiceExperts];
  for (int first = 0; first < options.experts; first += kBlock) {
    for (uint64_t bits = taken[static_cast<size_t>(first / kBlock) * stride]; bits != 0; bits &= bits - 1) {
      all[found++] = first + std::countr_zero(bits);
    }
  }
  *count = std::min(found, options.top_k);
  if (found > options.top_k || (found == 0 && options.fall_back)) {
    TopOfRow top;
    int32_t best[kMostExpertChoiceTopK];
    if (found == 0) {
      top.SetKeys(scores, options.experts);
      top.Select(options.experts, options.top_k, ids);
      *count = options.top_k;
    } else {
      float own[kMostExpertChoiceExperts];  // Of those that took it, which are in ascending order.
      for (int i = 0; i < found; ++i) own[i] = scores[all[i]];
      top.SetKeys(own, found);
      top.Select(found, options.top_k, best);
      std::sort(best, best + options.top_k);
      for (int k = 0; k < options.top_k; ++k) ids[k] = all[best[k]];
    }
  } else {
    std::copy_n(all, found, ids);
  }
  for (int k = 0; k < *count; ++k) weights[k] = scores[ids[k]];
  std::fill(ids + *count, ids + options.top_k, -1);
  std::fill(weights + *count, weights + options.top_k, 0.0f);
}

}  // namespace

absl::Status CanImplement(const ExpertChoiceOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("expert choice: ", parts...));
  };
  if (options.tokens < 0 || options.tokens > kMostExpertChoiceTokens) {
    return error(options.tokens, " tokens; 0 to ", kMostExpertChoiceTokens, " would fit");
  }
  if (options.experts < 1 || options.experts > kMostExpertChoiceExperts) {
    return error(options.experts, " experts; 1 to ", kMostExpertChoiceExperts, " would fit");
  }
  const int most = std::min(kMostExpertChoiceTopK, options.experts);
  if (options.top_k < 1 || options.top_k > most) {
    return error("top_k of ", options.top_k, " experts; 1 to ", most, " would fit");
  }
  if (options.tokens > 0 && (options.capacity < 1 || options.capacity > options.tokens)) {
    return error("a capacity of ", options.capacity, " of ", options.tokens, " tokens; 1 to ", options.tokens,
                 " would fit");
  }
  return absl::OkStatus();
}

absl::Status ChooseByExperts(const ExpertChoiceOptions& options, absl::Span<const float> scores,
                             absl::Span<int32_t> ids, absl::Span<int32_t> counts, absl::Span<float> weights) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t tokens = static_cast<size_t>(options.tokens), top_k = static_cast<size_t>(options.top_k);
  const size_t experts = static_cast<size_t>(options.experts);
  EPSIM_CHECK(scores.size() == tokens * experts && counts.size() == tokens);
  EPSIM_CHECK(ids.size() == tokens * top_k && weights.size() == tokens * top_k);
  if (tokens == 0) return absl::OkStatus();
  const int blocks = (options.experts + kBlock - 1) / kBlock;
  std::vector<uint64_t> taken(static_cast<size_t>(blocks) * tokens);  // [blocks, tokens]
  tbb::parallel_for(0, blocks, [&](int block) {
    TakeTokens(options, scores.data(), block * kBlock, &taken[static_cast<size_t>(block) * tokens]);
  });
  constexpr size_t kGrain = 512;
  tbb::parallel_for(tbb::blocked_range<size_t>(0, tokens, kGrain), [&](const tbb::blocked_range<size_t>& range) {
    for (size_t token = range.begin(); token < range.end(); ++token) {
      ListExperts(options, &scores[token * experts], &taken[token], tokens, &ids[token * top_k], &counts[token],
                  &weights[token * top_k]);
    }
  });
  return absl::OkStatus();
}

}  // namespace epsim
