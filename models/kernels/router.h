// The router of an MoE layer: from the gate's logits to the experts of each token and their weights.
//
// With s(e) a token's score of expert e, softmax or sigmoid of its logits, and b the bias, if any:
// 1. what experts are ranked by is c(e) = s(e) + b(e); without a bias it is the logit itself, which ranks as s(e) does
//    but never rounds two experts to the same score.
// 2. with groups, experts lie in `groups` equal groups in order; a group is ranked by its best c, or by the sum of its
//    best two (of c with a bias, of s without), and only experts of the best top_groups can be chosen.
// 3. the top_k experts of the highest c are chosen, the best first.  Of equal ones the lower id comes first, of equal
//    groups the lower, too.  NaN is below all numbers: ids are valid and distinct whatever the logits.
// 4. the weight is s(e), never c(e); renormalised by the sum over the chosen ones if asked for, and times `scaling`.
//      softmax, renormalised   e^(x(e) - m) / sum over chosen of e^(x - m), m the greatest logit chosen.  This is the
//                              softmax over the chosen logits alone, as gpt-oss has it.
//      softmax                 e^(x(e) - m) / sum over all of e^(x - m)
//      sigmoid, renormalised   s(e) / (sum over chosen of s + 1e-20)
//      sigmoid                 s(e)
//    A logit of -infinity has the weight 0.  A token with NaN, with +infinity under softmax, or with no finite logit
//    under softmax may have weights that are NaN.
//
// Softmax with groups by their best expert is the group_limited_greedy of DeepSeek-V2; sigmoid with a bias and groups
// by their best two is the noaux_tc of DeepSeek-V3.  There an expert outside of the chosen groups counts as 0, here as
// never: the two differ only where a bias brings c below 0.
//
// The twin and the kernel give the same bits (exact_float.h).  The sum over all experts is taken in a fixed order:
//   P[i] = sum over j of term(128 j + i), i < 128; P[i] += P[i + h] for i < h, with h = 64, 32, 16, 8, 4;
//   (P[0] + P[1]) + (P[2] + P[3]).
// A sum over chosen experts goes from the best to the last.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/kernels/vector_set.h"

namespace epsim {

enum class RouterScoring { kSoftmax, kSigmoid };
enum class GroupRank { kBestExpert, kBestTwo };

struct RouterOptions {
  int tokens = 0;
  int experts = 0;
  int top_k = 0;
  RouterScoring scoring = RouterScoring::kSoftmax;
  int groups = 1, top_groups = 1;  // n_group, topk_group.
  GroupRank group_rank = GroupRank::kBestExpert;
  bool renormalize = true;
  float scaling = 1;
};

inline constexpr int kMostRouterExperts = 512;
inline constexpr int kMostRouterTopK = 32;
inline constexpr int kMostRouterGroups = 32;

// Ok, or which figure does not fit and what would.
absl::Status CanImplement(const RouterOptions& options);

// logits: [tokens, experts], bias: [experts] or empty, ids and weights: [tokens, top_k].  Fails as CanImplement does.
absl::Status RouteTokens(const RouterOptions& options, absl::Span<const float> logits, absl::Span<const float> bias,
                         absl::Span<int32_t> ids, absl::Span<float> weights, VectorSet vectors = VectorSet::kFastest);

}  // namespace epsim
