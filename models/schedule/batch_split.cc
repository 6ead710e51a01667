#include "models/schedule/batch_split.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"

namespace epsim {
namespace {

bool DecodesOnly(const StepBatch& batch) {
  return std::all_of(batch.attention.begin(), batch.attention.end(),
                     [](const AttentionLoad& load) { return load.tokens == load.decode_tokens; });
}

BatchShape::Halves HalvesOf(const TwoBatchOverlap& config, const StepBatch& batch) {
  switch (config.order()) {
    case TwoBatchOverlap::PREFILL:
      return BatchShape::Halves::kPrefillOrder;
    case TwoBatchOverlap::DECODE:
      return BatchShape::Halves::kDecodeOrder;
    default:
      return DecodesOnly(batch) ? BatchShape::Halves::kDecodeOrder : BatchShape::Halves::kPrefillOrder;
  }
}

// Where chunk `i` of `k` begins: the first tokens mod k of them are one token longer.
int32_t ChunkBegin(int32_t tokens, int i, int k) { return tokens / k * i + std::min(i, tokens % k); }

}  // namespace

AttentionLoad AttentionOfTokens(const AttentionLoad& load, int64_t begin, int64_t end) {
  EPSIM_CHECK(0 <= begin && begin <= end && end <= load.tokens);
  if (begin == end) return {};
  const auto share = [&](int64_t all) {
    const auto until = [&](int64_t tokens) {
      return static_cast<int64_t>(static_cast<__int128>(all) * tokens / load.tokens);
    };
    return until(end) - until(begin);
  };
  AttentionLoad piece;
  piece.tokens = end - begin;
  piece.decode_tokens = share(load.decode_tokens);
  piece.attended_tokens = share(load.attended_tokens);
  piece.context_tokens = share(load.context_tokens);
  piece.output_tokens = share(load.output_tokens);
  int64_t prefill_tokens = piece.tokens - piece.decode_tokens, prompts = 0;
  if (prefill_tokens == 1) {
    ++piece.decode_tokens;
    prefill_tokens = 0;
  }
  if (prefill_tokens > 0) {
    const int64_t all_tokens = load.tokens - load.decode_tokens, all_prompts = load.sequences - load.decode_tokens;
    prompts = (all_prompts * prefill_tokens + all_tokens - 1) / all_tokens;
    prompts = std::clamp<int64_t>(prompts, 1, prefill_tokens / 2);
  } else {
    piece.attended_tokens = piece.context_tokens;
  }
  piece.sequences = piece.decode_tokens + prompts;
  return piece;
}

absl::StatusOr<BatchSplit> SplitBatch(const ScheduleConfig& config, const StepBatch& batch) {
  const int ranks = static_cast<int>(batch.attention.size());
  BatchSplit split;
  int32_t most = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    most = std::max(most, batch.rank_begin[rank + 1] - batch.rank_begin[rank]);
  }
  split.attention.push_back(batch.attention);
  if (most > 1 && config.has_external() && config.external().has_two_batch_overlap()) {
    split.shape.halves = HalvesOf(config.external().two_batch_overlap(), batch);
    for (const int half : {0, 1}) {
      TokenRange& range = split.pieces.emplace_back();
      std::vector<AttentionLoad>& attention = split.attention.emplace_back();
      for (int rank = 0; rank < ranks; ++rank) {
        const int32_t first = batch.rank_begin[rank], tokens = batch.rank_begin[rank + 1] - first;
        const int32_t begin = half == 0 ? 0 : tokens / 2, end = half == 0 ? tokens / 2 : tokens;
        range.begin.push_back(first + begin);
        range.end.push_back(first + end);
        attention.push_back(AttentionOfTokens(batch.attention[rank], begin, end));
      }
    }
    split.max_tokens_per_rank = most - most / 2;
    return split;
  }

  if (config.max_tokens() > 0) {
    const int64_t rows = int64_t{ranks} * most;
    const int64_t chunks = std::max<int64_t>(1, (rows + config.max_tokens() - 1) / config.max_tokens());
    if (chunks > kMostChunks) {
      return absl::InvalidArgumentError(absl::StrCat("schedule.max_tokens: ", config.max_tokens(), " cuts ", ranks,
                                                     " ranks of up to ", most, " tokens into ", chunks,
                                                     " chunks, more than ", kMostChunks, "; ",
                                                     (rows + kMostChunks - 1) / kMostChunks, " or more would do"));
    }
    split.shape.chunks = static_cast<int>(chunks);
  }
  const int chunks = split.shape.chunks;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    TokenRange& range = split.pieces.emplace_back();
    for (int rank = 0; rank < ranks; ++rank) {
      const int32_t first = batch.rank_begin[rank], tokens = batch.rank_begin[rank + 1] - first;
      range.begin.push_back(first + ChunkBegin(tokens, chunk, chunks));
      range.end.push_back(first + ChunkBegin(tokens, chunk + 1, chunks));
    }
  }
  split.max_tokens_per_rank = (most + chunks - 1) / chunks;
  return split;
}

}  // namespace epsim
