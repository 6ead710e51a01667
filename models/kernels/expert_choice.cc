#include "models/kernels/expert_choice.h"

#include <tbb/blocked_range.h>
#include <tbb/global_control.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/kernels/exact_float.h"
#include "models/kernels/top_of_row.h"
#include "policies/routing/top_tokens.h"

namespace epsim {
namespace {

constexpr int kLeastBlock = 64;  // Experts that a thread takes tokens for, at least.

// Lists by token: lists[begin[t]] to before lists[begin[t + 1]] are the ScoreKeys of the experts that took token t, of
// higher scores and lower experts the greater, in the order of experts.
struct Choice {
  const ExpertChoiceOptions& options;
  const float* scores;
  TopTokens* tops;  // [blocks]
  int block;        // Experts of each.
  const uint32_t* begin;
  const uint64_t* lists;
  int32_t* ids;
  int32_t* counts;
  float* weights;
};

EPSIM_HOST_DEVICE void TakeBlock(const Choice& choice, int number) {
  const int first = number * choice.block, experts = std::min(choice.block, choice.options.experts - first);
  choice.tops[number].Take(choice.scores + first, choice.options.experts, choice.options.tokens, experts,
                           choice.options.capacity);
}

float ScoreOfKey(uint64_t key) { return FloatOfOrdered(static_cast<uint32_t>(key >> 32)); }

EPSIM_HOST_DEVICE void ListToken(const Choice& choice, size_t token, TopOfRow* top) {
  const size_t experts = static_cast<size_t>(choice.options.experts), top_k = static_cast<size_t>(choice.options.top_k);
  const uint64_t* const keys = choice.lists + choice.begin[token];
  const size_t found = choice.begin[token + 1] - choice.begin[token];
  int32_t* const ids = choice.ids + token * top_k;
  float* const weights = choice.weights + token * top_k;
  size_t listed = std::min(found, top_k);
  if (found > top_k) {
    uint64_t best[kMostExpertChoiceExperts];
    std::copy_n(keys, found, best);
    GreatestFirst(best, best + found, top_k);
    const uint64_t last = *std::min_element(best, best + top_k);
    size_t at = 0;
    for (size_t i = 0; at < top_k; ++i) {
      ids[at] = static_cast<int32_t>(IndexOfKey(keys[i]));
      weights[at] = ScoreOfKey(keys[i]);
      at += keys[i] >= last;
    }
  } else if (found == 0 && choice.options.fall_back) {
    const float* const row = choice.scores + token * experts;
    top->SetKeys(row, choice.options.experts);
    top->Select(choice.options.experts, choice.options.top_k, ids);
    for (size_t k = 0; k < top_k; ++k) weights[k] = row[ids[k]] + 0.0f;
    listed = top_k;
  } else {
    for (size_t k = 0; k < found; ++k) {
      ids[k] = static_cast<int32_t>(IndexOfKey(keys[k]));
      weights[k] = ScoreOfKey(keys[k]);
    }
  }
  choice.counts[token] = static_cast<int32_t>(listed);
  for (size_t k = listed; k < top_k; ++k) ids[k] = -1, weights[k] = 0;
}

EPSIM_HOST_DEVICE void ListTokens(const Choice& choice, size_t begin, size_t end) {
  TopOfRow top;
  for (size_t token = begin; token < end; ++token) ListToken(choice, token, &top);
}

// Memory that a thread keeps from one call to the next.
struct Workspace {
  std::vector<TopTokens> tops;
  std::vector<uint32_t> begin;
  std::vector<uint64_t> lists;

  // From the tokens of each expert to the experts of each token.
  void ListByToken(const ExpertChoiceOptions& options, int block) {
    const auto keys_of = [&](int expert) { return tops[static_cast<size_t>(expert / block)].of(expert % block); };
    begin.assign(static_cast<size_t>(options.tokens) + 2, 0);
    uint32_t* const next = begin.data() + 1;  // next[t + 1] counts token t, then becomes where t ends.
    for (int expert = 0; expert < options.experts; ++expert) {
      const uint64_t* const keys = keys_of(expert);
      for (int i = 0; i < options.capacity; ++i) ++next[IndexOfKey(keys[i]) + 1];
    }
    for (int token = 0; token < options.tokens; ++token) next[token + 1] += next[token];
    lists.resize(static_cast<size_t>(options.experts) * static_cast<size_t>(options.capacity));
    for (int expert = 0; expert < options.experts; ++expert) {
      const uint64_t* const keys = keys_of(expert);
      for (int i = 0; i < options.capacity; ++i) {
        const uint64_t score = keys[i] & ~uint64_t{0xffff'ffffu};
        lists[next[IndexOfKey(keys[i])]++] = score | (0xffff'ffffu - static_cast<uint32_t>(expert));
      }
    }
  }
};

struct Parts {
  void (*take_block)(const Choice&, int);
  void (*list_tokens)(const Choice&, size_t, size_t);
};

void TakeBlockPortable(const Choice& choice, int number) { TakeBlock(choice, number); }
void ListTokensPortable(const Choice& choice, size_t begin, size_t end) { ListTokens(choice, begin, end); }

#if defined(__x86_64__)
__attribute__((target("avx2,popcnt,bmi"))) void TakeBlockAvx2(const Choice& choice, int number) {
  TakeBlock(choice, number);
}
__attribute__((target("avx2,popcnt,bmi"))) void ListTokensAvx2(const Choice& choice, size_t begin, size_t end) {
  ListTokens(choice, begin, end);
}
#endif

Parts PartsOf([[maybe_unused]] VectorSet vectors) {
#if defined(__x86_64__)
  if (UseAvx2(vectors)) return {&TakeBlockAvx2, &ListTokensAvx2};
#endif
  return {&TakeBlockPortable, &ListTokensPortable};
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
                             absl::Span<int32_t> ids, absl::Span<int32_t> counts, absl::Span<float> weights,
                             VectorSet vectors) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t tokens = static_cast<size_t>(options.tokens), top_k = static_cast<size_t>(options.top_k);
  EPSIM_CHECK(scores.size() == tokens * static_cast<size_t>(options.experts) && counts.size() == tokens);
  EPSIM_CHECK(ids.size() == tokens * top_k && weights.size() == tokens * top_k);
  if (tokens == 0) return absl::OkStatus();
  // As many blocks as threads: the fewer, the longer the parts of rows that each reads.
  const int threads = static_cast<int>(tbb::global_control::active_value(tbb::global_control::max_allowed_parallelism));
  const int most = (options.experts + kLeastBlock - 1) / kLeastBlock, blocks = std::clamp(threads, 1, most);
  const int block = ((options.experts + blocks - 1) / blocks + kLeastBlock - 1) / kLeastBlock * kLeastBlock;
  thread_local Workspace kept;
  Workspace& work = kept;
  if (work.tops.size() < static_cast<size_t>(blocks)) work.tops.resize(static_cast<size_t>(blocks));
  const Parts parts = PartsOf(vectors);
  Choice choice = {.options = options,
                   .scores = scores.data(),
                   .tops = work.tops.data(),
                   .block = block,
                   .begin = nullptr,
                   .lists = nullptr,
                   .ids = ids.data(),
                   .counts = counts.data(),
                   .weights = weights.data()};
  tbb::parallel_for(0, (options.experts + block - 1) / block, [&](int number) { parts.take_block(choice, number); });
  work.ListByToken(options, block);
  choice.begin = work.begin.data();
  choice.lists = work.lists.data();
  constexpr size_t kGrain = 512;
  tbb::parallel_for(tbb::blocked_range<size_t>(0, tokens, kGrain), [&](const tbb::blocked_range<size_t>& range) {
    parts.list_tokens(choice, range.begin(), range.end());
  });
  return absl::OkStatus();
}

}  // namespace epsim
