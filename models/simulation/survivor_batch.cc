#include "models/simulation/survivor_batch.h"

#include <algorithm>

#include "engine/check.h"
#include "models/schedule/batch_split.h"

namespace epsim {

StepBatch DealOverSurvivors(const StepBatch& batch, absl::Span<const char> away) {
  const size_t ranks = batch.attention.size();
  EPSIM_CHECK(away.size() == ranks && batch.rank_begin.size() == ranks + 1);
  const int64_t survivors = std::count(away.begin(), away.end(), 0);
  EPSIM_CHECK(survivors > 0);
  AttentionLoad whole;
  for (const AttentionLoad& load : batch.attention) {
    whole.tokens += load.tokens;
    whole.sequences += load.sequences;
    whole.decode_tokens += load.decode_tokens;
    whole.attended_tokens += load.attended_tokens;
    whole.context_tokens += load.context_tokens;
    whole.output_tokens += load.output_tokens;
  }
  StepBatch dealt = batch;
  int64_t i = 0;
  for (size_t rank = 0; rank < ranks; ++rank) {
    const int64_t begin = dealt.rank_begin[rank];
    if (away[rank] == 0) ++i;
    const int64_t end = int64_t{batch.tokens} * i / survivors;
    dealt.rank_begin[rank + 1] = static_cast<int32_t>(end);
    dealt.attention[rank] = begin == end ? AttentionLoad{} : AttentionOfTokens(whole, begin, end);
  }
  return dealt;
}

}  // namespace epsim
