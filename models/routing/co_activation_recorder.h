// A sample of the tokens that a server has seen, with the experts that each chose: what policies learn from it is which
// experts are wanted together.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/random_stream.h"
#include "policies/placement/placement_policy.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// Every token since the last Clear() is in the sample with the same probability (reservoir sampling, algorithm R of
// Vitter 1985: the i-th takes a random place with probability most_tokens / i).
class CoActivationRecorder {
 public:
  explicit CoActivationRecorder(uint64_t seed, int most_tokens = 4096);

  // Batches without ids (counts only) give no tokens.  REQUIRES: all batches have the same layers and top_k.
  void Add(const StepBatch& batch);
  // Of what was added so far; no tokens if nothing was.  Valid until the next call of Add, Clear or view.
  CoActivation view();
  // A new window begins.
  void Clear();

 private:
  void Take(const StepBatch& batch, int token, size_t place);

  const size_t most_tokens_;
  RandomStream random_;
  uint64_t seen_ = 0;
  int layers_ = 0, top_k_ = 0;      // 0 before the first batch.
  std::vector<uint16_t> sample_;    // [tokens, layers, top_k]
  std::vector<uint16_t> by_layer_;  // [layers, tokens, top_k]
};

}  // namespace epsim
