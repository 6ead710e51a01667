// Expert choice: instead of tokens choosing experts, each expert takes the tokens that score highest for it, as many as
// it has capacity for, so that no expert can be flooded.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "policies/routing/routing_policy.h"

namespace epsim {

// Over the T tokens of one source rank in one layer:
// 1. each expert takes its top
//      capacity = min(T, max(1, ceil(capacity_factor * T * top_k / experts)))
//    tokens by score; of equal scores the lower token first;
// 2. a token keeps at most top_k of the experts that took it, those of its highest scores; of equal scores the lower
//    expert first.  They are listed in ascending order;
// 3. a token that no expert took goes to its own top-k, beyond their capacity, or to none (Fallback).
// Source: Zhou et al. 2022 (arXiv 2202.09368), where a token may go to any number of experts and never falls back.
std::unique_ptr<RoutingPolicy> NewExpertChoice(const ExpertChoice& complete, const RoutingShape& shape);

// Fills in defaults.  `place`: the config's, for errors.
absl::Status CompleteExpertChoice(const std::string& place, ExpertChoice* config);

// The capacity of each expert for `tokens` tokens.  A product that is a whole number but for rounding (1e-9) counts as
// that.
int ExpertCapacity(double capacity_factor, int tokens, int top_k, int experts);

}  // namespace epsim
