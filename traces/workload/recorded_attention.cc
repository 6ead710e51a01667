#include "traces/workload/recorded_attention.h"

#include <algorithm>

#include "traces/format/trace.pb.h"

namespace epsim {

AttentionLoad RecordedAttention::Of(const RecordedTokens& tokens, int64_t begin, int64_t end) {
  AttentionLoad load;
  load.tokens = end - begin;
  sequences_.clear();
  bool sorted = true;
  for (int64_t t = begin; t < end; ++t) {
    const bool decode = tokens.phase != nullptr && tokens.phase[t] == DECODE;
    bool follows = t > begin;
    if (tokens.request_index != nullptr) {
      follows = follows && tokens.request_index[t] == tokens.request_index[t - 1];
    } else if (tokens.position != nullptr) {
      follows = follows && !decode && tokens.position[t] == tokens.position[t - 1] + 1;
    } else {
      follows = follows && !decode;
    }
    if (!follows) {
      sequences_.emplace_back();
      if (tokens.request_index != nullptr) {
        sequences_.back().request = tokens.request_index[t];
        sorted = sorted && (t == begin || tokens.request_index[t] > tokens.request_index[t - 1]);
      }
    }
    Sequence& sequence = sequences_.back();
    const int64_t context = tokens.position != nullptr ? int64_t{tokens.position[t]} + 1 : sequence.tokens + 1;
    load.attended_tokens += context;
    sequence.context = std::max(sequence.context, context);
    ++sequence.tokens;
    if (decode) ++sequence.decode_phase;
  }
  if (!sorted) {
    // Parts of one request that lie apart are one sequence.
    std::stable_sort(sequences_.begin(), sequences_.end(),
                     [](const Sequence& a, const Sequence& b) { return a.request < b.request; });
    size_t kept = 0;
    for (size_t i = 1; i < sequences_.size(); ++i) {
      Sequence& last = sequences_[kept];
      const Sequence& next = sequences_[i];
      if (next.request != last.request) {
        sequences_[++kept] = next;
        continue;
      }
      if (tokens.position == nullptr) {
        // The second part goes on where the first ended.
        load.attended_tokens += last.context * next.tokens;
        last.context += next.context;
      } else {
        last.context = std::max(last.context, next.context);
      }
      last.tokens += next.tokens;
      last.decode_phase += next.decode_phase;
    }
    sequences_.resize(kept + 1);
  }
  for (const Sequence& sequence : sequences_) {
    ++load.sequences;
    load.context_tokens += sequence.context;
    if (sequence.tokens == 1) ++load.decode_tokens;
    load.output_tokens += sequence.decode_phase + (sequence.decode_phase < sequence.tokens ? 1 : 0);
  }
  return load;
}

}  // namespace epsim
