// How often two experts are chosen by the same token: P'P of the matrix P [tokens, experts] that is 1 where a token
// chose an expert.  Placements put experts that occur together on one rank, or on different ones.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace epsim {

struct CoOccurrenceOptions {
  int tokens = 0;
  int experts = 0;
  int top_k = 0;
};

inline constexpr int kMostCoOccurrenceExperts = 4096;

// Ok, or which figure does not fit and what would.
absl::Status CanImplement(const CoOccurrenceOptions& options);

// ids: [tokens, top_k], distinct in a token, -1 for none.  counts [experts, experts], symmetric: tokens that chose
// both; on the diagonal, tokens that chose the expert.  Fails as CanImplement does.
absl::Status CountCoOccurrence(const CoOccurrenceOptions& options, absl::Span<const int32_t> ids,
                               absl::Span<int32_t> counts);

}  // namespace epsim
