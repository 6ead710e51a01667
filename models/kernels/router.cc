#include "models/kernels/router.h"

#include <tbb/blocked_range.h>
#include <tbb/parallel_for.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/kernels/exact_float.h"
#include "models/kernels/top_of_row.h"

namespace epsim {
namespace {

constexpr int kParts = 128;  // Of a sum over all experts.

struct Row {
  alignas(64) float score[kMostRouterExperts];
  alignas(64) float ranked_by[kMostRouterExperts];
  alignas(64) float part[kParts];
};

EPSIM_HOST_DEVICE float SumOfParts(float* part) {
  for (int l = 0; l < 32; ++l) {
    part[l] = (part[4 * l] + part[4 * l + 1]) + (part[4 * l + 2] + part[4 * l + 3]);
  }
  for (int n = 16; n > 0; n /= 2) {
    for (int l = 0; l < n; ++l) part[l] += part[l + n];
  }
  return part[0];
}

// The sum of e^(x - m) over all experts, which are left in row->score.
EPSIM_HOST_DEVICE float SumOfExponentials(const float* logits, int experts, float most, Row* row) {
  for (int e = 0; e < experts; ++e) row->score[e] = Exp(logits[e] - most);
  std::fill(row->part, row->part + kParts, 0.0f);
  for (int first = 0; first < experts; first += kParts) {
    const int n = std::min(kParts, experts - first);
    for (int i = 0; i < n; ++i) row->part[i] += row->score[first + i];
  }
  return SumOfParts(row->part);
}

// Takes experts outside of the best groups out of the question.
EPSIM_HOST_DEVICE void KeepBestGroups(const RouterOptions& options, const float* ranked_by, TopOfRow* top) {
  const int size = options.experts / options.groups;
  uint32_t key[kMostRouterGroups];
  for (int g = 0; g < options.groups; ++g) {
    const float* const of_group = ranked_by + static_cast<size_t>(g) * size;
    int32_t best = TopOfRow::kNever, second = TopOfRow::kNever;
    for (int i = 0; i < size; ++i) {
      const int32_t own = TopOfRow::Key(of_group[i]);
      second = std::max(second, std::min(best, own));
      best = std::max(best, own);
    }
    key[g] = options.group_rank == GroupRank::kBestTwo
                 ? OrderedBits(TopOfRow::FloatOfKey(best) + TopOfRow::FloatOfKey(second))
                 : OrderedBits(TopOfRow::FloatOfKey(best));
  }
  for (int g = 0; g < options.groups; ++g) {
    int better = 0;
    for (int h = 0; h < options.groups; ++h) better += key[h] > key[g] || (key[h] == key[g] && h < g);
    if (better < options.top_groups) continue;
    std::fill_n(top->key + static_cast<size_t>(g) * size, size, TopOfRow::kNever);
  }
}

// One token.
EPSIM_HOST_DEVICE void Route(const RouterOptions& options, const float* logits, const float* bias, int32_t* ids,
                             float* weights, Row* row, TopOfRow* top) {
  const bool softmax = options.scoring == RouterScoring::kSoftmax;
  const bool grouped = options.top_groups < options.groups;
  const bool best_two = grouped && options.group_rank == GroupRank::kBestTwo;
  const bool all_scores = bias != nullptr || best_two;
  const int experts = options.experts;
  float most = 0, sum = 1;
  if (softmax && (all_scores || !options.renormalize)) {
    int32_t best = TopOfRow::kNever;
    for (int e = 0; e < experts; ++e) best = std::max(best, TopOfRow::Key(logits[e]));
    most = TopOfRow::FloatOfKey(best);
    sum = SumOfExponentials(logits, experts, most, row);
    if (all_scores) {
      for (int e = 0; e < experts; ++e) row->score[e] /= sum;
    }
  } else if (all_scores) {
    for (int e = 0; e < experts; ++e) row->score[e] = Sigmoid(logits[e]);
  }
  const float* ranked_by = logits;
  if (bias != nullptr) {
    for (int e = 0; e < experts; ++e) row->ranked_by[e] = row->score[e] + bias[e];
    ranked_by = row->ranked_by;
  }

  top->SetKeys(ranked_by, experts);
  if (grouped) KeepBestGroups(options, best_two && bias == nullptr ? row->score : ranked_by, top);
  top->Select(experts, options.top_k, ids);

  float chosen_sum = 0;
  if (softmax && options.renormalize) {
    int32_t best = TopOfRow::kNever;
    for (int k = 0; k < options.top_k; ++k) best = std::max(best, TopOfRow::Key(logits[ids[k]]));
    most = TopOfRow::FloatOfKey(best);
  }
  for (int k = 0; k < options.top_k; ++k) {
    const float logit = logits[ids[k]];
    weights[k] = softmax ? Exp(logit - most) : Sigmoid(logit);
    chosen_sum += weights[k];
  }
  if (options.renormalize) sum = softmax ? chosen_sum : chosen_sum + 1e-20f;
  for (int k = 0; k < options.top_k; ++k) weights[k] = weights[k] / sum * options.scaling;
}

EPSIM_HOST_DEVICE void RouteRange(const RouterOptions& options, const float* logits, const float* bias, int begin,
                                  int end, int32_t* ids, float* weights) {
  Row row;
  TopOfRow top;
  for (int token = begin; token < end; ++token) {
    const size_t out = static_cast<size_t>(token) * options.top_k;
    Route(options, logits + static_cast<size_t>(token) * options.experts, bias, ids + out, weights + out, &row, &top);
  }
}

using RangeFunction = void (*)(const RouterOptions&, const float*, const float*, int, int, int32_t*, float*);

void RoutePortable(const RouterOptions& options, const float* logits, const float* bias, int begin, int end,
                   int32_t* ids, float* weights) {
  RouteRange(options, logits, bias, begin, end, ids, weights);
}

#if defined(__x86_64__)
__attribute__((target("avx2"))) void RouteAvx2(const RouterOptions& options, const float* logits, const float* bias,
                                               int begin, int end, int32_t* ids, float* weights) {
  RouteRange(options, logits, bias, begin, end, ids, weights);
}
#endif

RangeFunction FastestRange() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2")) return &RouteAvx2;
#endif
  return &RoutePortable;
}

}  // namespace

absl::Status CanImplement(const RouterOptions& options) {
  const auto error = [](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("router: ", parts...));
  };
  if (options.tokens < 0) return error(options.tokens, " tokens");
  if (options.experts < 1 || options.experts > kMostRouterExperts) {
    return error(options.experts, " experts; 1 to ", kMostRouterExperts, " would fit");
  }
  if (options.groups < 1 || options.groups > kMostRouterGroups || options.experts % options.groups != 0) {
    return error(options.groups, " equal groups of ", options.experts, " experts; a divisor up to ", kMostRouterGroups,
                 " would fit");
  }
  if (options.top_groups < 1 || options.top_groups > options.groups) {
    return error(options.top_groups, " of ", options.groups, " groups; 1 to ", options.groups, " would fit");
  }
  const int size = options.experts / options.groups;
  if (options.group_rank == GroupRank::kBestTwo && options.top_groups < options.groups && size < 2) {
    return error("groups of one expert have no best two");
  }
  const int most = std::min(kMostRouterTopK, size * options.top_groups);
  if (options.top_k < 1 || options.top_k > most) {
    return error("top_k of ", options.top_k, " experts; 1 to ", most, " would fit");
  }
  if (!std::isfinite(options.scaling)) return error("a scaling of ", options.scaling, "; a finite one would fit");
  return absl::OkStatus();
}

absl::Status RouteTokens(const RouterOptions& options, absl::Span<const float> logits, absl::Span<const float> bias,
                         absl::Span<int32_t> ids, absl::Span<float> weights) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t tokens = static_cast<size_t>(options.tokens), top_k = static_cast<size_t>(options.top_k);
  EPSIM_CHECK(logits.size() == tokens * static_cast<size_t>(options.experts));
  EPSIM_CHECK(bias.empty() || bias.size() == static_cast<size_t>(options.experts));
  EPSIM_CHECK(ids.size() == tokens * top_k && weights.size() == tokens * top_k);
  static const RangeFunction route = FastestRange();
  constexpr int kGrain = 256;
  tbb::parallel_for(tbb::blocked_range<int>(0, options.tokens, kGrain), [&](const tbb::blocked_range<int>& range) {
    route(options, logits.data(), bias.empty() ? nullptr : bias.data(), range.begin(), range.end(), ids.data(),
          weights.data());
  });
  return absl::OkStatus();
}

}  // namespace epsim
