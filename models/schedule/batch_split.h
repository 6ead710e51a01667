// What a batch is cut into before it runs: halves that overlap, or chunks that follow each other.  Every token of every
// rank is in exactly one piece.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/routing/token_routing.h"
#include "models/schedule/program.h"
#include "models/schedule/schedule.pb.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// Of a layer.  What serving engines are configured to stays far below.
inline constexpr int kMostChunks = 64;

struct BatchSplit {
  BatchShape shape;
  std::vector<TokenRange> pieces;                     // [shape.pieces()]
  std::vector<std::vector<AttentionLoad>> attention;  // [1, or 3 with halves; ranks]: the whole batch, then its halves.
  int max_tokens_per_rank = 0;                        // In one piece.
};

// Of each rank's n tokens the first half has floor(n / 2); chunk c of k has n / k, and one more where c < n mod k. With
// `config` complete.  Fails on a batch of more than kMostChunks chunks, with the max_tokens that would do.
absl::StatusOr<BatchSplit> SplitBatch(const ScheduleConfig& config, const StepBatch& batch);

// The attention of the tokens from `begin` to `end` of `load`, which are taken to be alike in their contexts:
//   attended (context) tokens = floor(attended * end / tokens) - floor(attended * begin / tokens)
// and as many decode tokens by the same rule.  A prompt of which each piece has a part is a sequence of both; a single
// token of a prompt is a decode token: alone in its sequence, it reads the whole context.  REQUIRES: 0 <= begin <= end
// <= load.tokens.
AttentionLoad AttentionOfTokens(const AttentionLoad& load, int64_t begin, int64_t end);

}  // namespace epsim
