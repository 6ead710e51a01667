// One step's batch: the tokens that one forward pass of the EP group takes through every layer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "traces/format/trace.pb.h"

namespace epsim {

// What attention has to do on one rank in one step.  A token at position p attends to p + 1 tokens (itself included).
struct AttentionLoad {
  int64_t tokens = 0;
  int64_t sequences = 0;
  int64_t decode_tokens = 0;    // Tokens alone in their sequence's step.
  int64_t attended_tokens = 0;  // Sum over tokens of the context each attends to.
  int64_t context_tokens = 0;   // Sum over sequences of the context at the end of the step (KV entries read).
  int64_t output_tokens = 0;    // Tokens that need logits: all decode tokens, the last of each prefill.
};

// Where the trace has the router's scores of a token: of layer l, [experts] numbers at first + l * layer_stride.
struct TokenScores {
  const std::byte* first = nullptr;
  size_t layer_stride = 0;
};

struct StepBatch {
  int64_t index = 0;
  int tokens = 0;
  // Tokens are ordered by source rank: rank r owns [rank_begin[r], rank_begin[r + 1]).  [ranks + 1]
  std::vector<int32_t> rank_begin;
  std::vector<AttentionLoad> attention;  // [ranks]

  int layers = 0, top_k = 0, id_bytes = 1;
  // ids of layer l: [tokens, top_k] at ids + l * layer_stride; the first valid_count of each are real.
  const std::byte* ids = nullptr;
  size_t layer_stride = 0;
  const uint8_t* valid_count = nullptr;  // [layers, tokens], or null: all have top_k.

  // Where the trace has counts only: tokens per logical expert [layers, experts]; ids is null.
  const uint32_t* counts = nullptr;

  // Scores of each token, before selection.  [tokens]; empty unless the source was asked for them.
  std::vector<TokenScores> scores;
  NumberFormat score_format = NUMBER_FORMAT_NONE;

  const std::byte* layer_ids(int layer) const { return ids + static_cast<size_t>(layer) * layer_stride; }
};

}  // namespace epsim
