// What the router thought of each expert for each token: read from the trace, or made up where it has the choice only.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// Scores of the tokens [begin, end) of `batch` in one layer.  scores: [end - begin, experts].  Fails on NaN, with its
// place.  REQUIRES: the batch has scores.
absl::Status ReadScores(const StepBatch& batch, int layer, int begin, int end, absl::Span<float> scores);

// The router's own choice of those tokens.  own: [end - begin, top_k], own_count: [end - begin].
void ReadChoice(const StepBatch& batch, int layer, int begin, int end, absl::Span<uint16_t> own,
                absl::Span<uint8_t> own_count);

// Scores that fit a choice.  A token's k-th expert (from 0) gets 1 - k / (2 top_k), which is above 0.5; another expert
// e
//   0.5 * load[e] / max(load),
// 0 where no load has been seen.  own: [tokens, top_k], own_count: [tokens], load: [experts], of past steps.
void ScoresByRank(absl::Span<const uint16_t> own, absl::Span<const uint8_t> own_count, int top_k,
                  absl::Span<const int64_t> load, absl::Span<float> scores);

}  // namespace epsim
