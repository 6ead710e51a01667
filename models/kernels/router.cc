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

constexpr int kParts = 128;  // Of a sum over all experts; rows are padded to a multiple of it, as vectors like it.
constexpr float kBehindRow = -std::numeric_limits<float>::infinity();

struct Row {
  alignas(64) float logit[kMostRouterExperts];
  alignas(64) float score[kMostRouterExperts];
  alignas(64) float ranked_by[kMostRouterExperts];
  alignas(64) float part[kParts];
  alignas(64) int32_t group_key[kMostRouterExperts];
};

EPSIM_HOST_DEVICE float SumOfParts(float* part) {
  for (int i = 0; i < 64; ++i) part[i] += part[i + 64];
  for (int i = 0; i < 32; ++i) part[i] += part[i + 32];
  for (int i = 0; i < 16; ++i) part[i] += part[i + 16];
  for (int i = 0; i < 8; ++i) part[i] += part[i + 8];
  for (int i = 0; i < 4; ++i) part[i] += part[i + 4];
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// The sum of e^(x - m) over all experts; with `keep` they are left in row->score.
EPSIM_HOST_DEVICE float SumOfExponentials(int padded, float most, bool keep, Row* row) {
  for (int i = 0; i < kParts; ++i) row->part[i] = 0;
  for (int first = 0; first < padded; first += kParts) {
    float* const score = row->score + first;
    const float* const logit = row->logit + first;
    if (keep) {
      for (int i = 0; i < kParts; ++i) score[i] = Exp(logit[i] - most);
      for (int i = 0; i < kParts; ++i) row->part[i] += score[i];
    } else {
      for (int i = 0; i < kParts; ++i) row->part[i] += Exp(logit[i] - most);
    }
  }
  return SumOfParts(row->part);
}

// The greatest of `count` keys, and the second greatest.
struct BestTwo {
  int32_t best, second;
};
EPSIM_HOST_DEVICE BestTwo BestTwoOf(const int32_t* key, int count) {
  constexpr int kLanes = 8;
  typedef int32_t Lanes __attribute__((vector_size(4 * kLanes)));
  Lanes best = Lanes{} + TopOfRow::kNever, second = best;
  int i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    Lanes own;
    std::memcpy(&own, key + i, sizeof(own));
    const Lanes less = own < best ? own : best;
    second = less > second ? less : second;
    best = own > best ? own : best;
  }
  const auto merge = [&best, &second](const Lanes& other_best, const Lanes& other_second) {
    const Lanes less = other_best < best ? other_best : best;
    second = other_second > second ? other_second : second;
    second = less > second ? less : second;
    best = other_best > best ? other_best : best;
  };
  if (i < count) {
    Lanes own = Lanes{} + TopOfRow::kNever;
    std::memcpy(&own, key + i, sizeof(int32_t) * static_cast<size_t>(count - i));
    merge(own, Lanes{} + TopOfRow::kNever);
  }
  // Halves upon each other: only the lower places count.
  merge(__builtin_shuffle(best, Lanes{4, 5, 6, 7, 0, 0, 0, 0}),
        __builtin_shuffle(second, Lanes{4, 5, 6, 7, 0, 0, 0, 0}));
  merge(__builtin_shuffle(best, Lanes{2, 3, 0, 0, 0, 0, 0, 0}),
        __builtin_shuffle(second, Lanes{2, 3, 0, 0, 0, 0, 0, 0}));
  merge(__builtin_shuffle(best, Lanes{1, 0, 0, 0, 0, 0, 0, 0}),
        __builtin_shuffle(second, Lanes{1, 0, 0, 0, 0, 0, 0, 0}));
  return {best[0], second[0]};
}

// Takes experts outside of the best groups out of the question.  group_key: keys of what groups are ranked by.
EPSIM_HOST_DEVICE void KeepBestGroups(const RouterOptions& options, const int32_t* group_key, TopOfRow* top) {
  const int size = options.experts / options.groups;
  uint32_t key[kMostRouterGroups];
  for (int g = 0; g < options.groups; ++g) {
    const BestTwo two = BestTwoOf(group_key + static_cast<size_t>(g) * size, size);
    const float best = TopOfRow::FloatOfKey(two.best);
    key[g] = OrderedBits(options.group_rank == GroupRank::kBestTwo ? best + TopOfRow::FloatOfKey(two.second) : best);
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
  const int experts = options.experts, padded = (experts + kParts - 1) / kParts * kParts;
  float most = 0, sum = 1;
  const bool normaliser = softmax && (all_scores || !options.renormalize);
  if (normaliser || all_scores) {
    std::copy_n(logits, experts, row->logit);
    std::fill(row->logit + experts, row->logit + padded, kBehindRow);
  }
  if (normaliser) {
    top->SetKeys(logits, experts);
    most = TopOfRow::FloatOfKey(top->Greatest(experts));
    sum = SumOfExponentials(padded, most, all_scores, row);
    if (all_scores) {
      for (int e = 0; e < padded; ++e) row->score[e] /= sum;
    }
  } else if (all_scores) {
    for (int e = 0; e < padded; ++e) row->score[e] = Sigmoid(row->logit[e]);
  }
  if (bias != nullptr) {
    for (int e = 0; e < experts; ++e) row->ranked_by[e] = row->score[e] + bias[e];
    top->SetKeys(row->ranked_by, experts);
  } else if (!normaliser) {
    top->SetKeys(logits, experts);
  }

  if (grouped) {
    const int32_t* group_key = top->key;
    if (best_two && bias == nullptr) {
      for (int e = 0; e < experts; ++e) row->group_key[e] = TopOfRow::Key(row->score[e]);
      group_key = row->group_key;
    }
    KeepBestGroups(options, group_key, top);
  }
  top->Select(experts, options.top_k, ids);

  float chosen[kMostRouterTopK];
  for (int k = 0; k < options.top_k; ++k) chosen[k] = logits[ids[k]];
  if (softmax && options.renormalize) {
    int32_t best = TopOfRow::kNever;
    for (int k = 0; k < options.top_k; ++k) best = std::max(best, TopOfRow::Key(chosen[k]));
    most = TopOfRow::FloatOfKey(best);
  }
  if (softmax) {
    for (int k = 0; k < options.top_k; ++k) weights[k] = Exp(chosen[k] - most);
  } else {
    for (int k = 0; k < options.top_k; ++k) weights[k] = Sigmoid(chosen[k]);
  }
  float chosen_sum = 0;
  for (int k = 0; k < options.top_k; ++k) chosen_sum += weights[k];
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
__attribute__((target("avx2,popcnt,bmi"))) void RouteAvx2(const RouterOptions& options, const float* logits,
                                                          const float* bias, int begin, int end, int32_t* ids,
                                                          float* weights) {
  RouteRange(options, logits, bias, begin, end, ids, weights);
}
#endif

RangeFunction RangeOf([[maybe_unused]] VectorSet vectors) {
#if defined(__x86_64__)
  if (UseAvx2(vectors)) return &RouteAvx2;
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
                         absl::Span<int32_t> ids, absl::Span<float> weights, VectorSet vectors) {
  RETURN_IF_ERROR(CanImplement(options));
  const size_t tokens = static_cast<size_t>(options.tokens), top_k = static_cast<size_t>(options.top_k);
  EPSIM_CHECK(logits.size() == tokens * static_cast<size_t>(options.experts));
  EPSIM_CHECK(bias.empty() || bias.size() == static_cast<size_t>(options.experts));
  EPSIM_CHECK(ids.size() == tokens * top_k && weights.size() == tokens * top_k);
  const RangeFunction route = RangeOf(vectors);
  constexpr int kGrain = 256;
  tbb::parallel_for(tbb::blocked_range<int>(0, options.tokens, kGrain), [&](const tbb::blocked_range<int>& range) {
    route(options, logits.data(), bias.empty() ? nullptr : bias.data(), range.begin(), range.end(), ids.data(),
          weights.data());
  });
  return absl::OkStatus();
}

}  // namespace epsim
