// The load of the busiest chip by simulation, as models/load/sampled_max_load.h has it for uniform choice, but with
// random numbers by counter, so that a GPU simulates the same batches: each token of a batch chooses top_k distinct
// experts, every set equally likely; a batch's figure is the greatest number, over chips, of experts that any token
// chose.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"

namespace epsim {

struct SampledLoadOptions {
  int64_t batches = 0;
  int tokens = 0;  // Of a batch.
  int experts = 0;
  int top_k = 0;
  int chips = 1;  // Experts are dealt as in models/load/max_expert_load.h.
  uint64_t seed = 1;
};

inline constexpr int kMostSampledLoadExperts = 512;

// Sums over batches, of whole numbers: exact, whatever the order.
struct ActiveSums {
  uint64_t most_active = 0;
  uint64_t squares = 0;  // Of it.
  friend bool operator==(const ActiveSums&, const ActiveSums&) = default;
};

// Ok, or which figure does not fit and what would.
absl::Status CanImplement(const SampledLoadOptions& options);

// Fails as CanImplement does.
absl::Status SampleActiveExperts(const SampledLoadOptions& options, ActiveSums* sums);

}  // namespace epsim
