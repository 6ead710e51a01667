// Expert choice as a kernel: what the policy in policies/routing/expert_choice.h decides for the tokens of one source
// rank in one layer, from the router's scores alone.
//
// 1. each expert takes its `capacity` tokens of the highest scores; of equal scores the lower token first;
// 2. a token keeps at most top_k of the experts that took it, those of its highest scores; of equal scores the lower
//    expert first.  They are listed in ascending order;
// 3. a token that no expert took goes, with `fall_back`, to its own top_k, listed with the best first; of equal scores
//    the lower expert first.
// -0 equals 0, and -infinity is a score like others.  A score that is NaN has no meaning: the kernels take it to be
// below all others, the twin may take any.
#pragma once

#include <cstddef>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "models/kernels/vector_set.h"

namespace epsim {

struct ExpertChoiceOptions {
  int tokens = 0;
  int experts = 0;
  int top_k = 0;
  int capacity = 0;  // Tokens that each expert takes, 1 to `tokens`; ExpertCapacity() of the policy says how many.
  bool fall_back = true;
};

inline constexpr int kMostExpertChoiceExperts = 512;
inline constexpr int kMostExpertChoiceTopK = 32;
inline constexpr int kMostExpertChoiceTokens = 1 << 20;

// Ok, or which figure does not fit and what would.
absl::Status CanImplement(const ExpertChoiceOptions& options);

// scores: [tokens, experts].  Out: ids [tokens, top_k], -1 behind the token's last; counts [tokens], how many there
// are; weights [tokens, top_k], the scores of those experts (of -0: 0), 0 behind the last.  Fails as CanImplement does.
absl::Status ChooseByExperts(const ExpertChoiceOptions& options, absl::Span<const float> scores,
                             absl::Span<int32_t> ids, absl::Span<int32_t> counts, absl::Span<float> weights,
                             VectorSet vectors = VectorSet::kFastest);

}  // namespace epsim
