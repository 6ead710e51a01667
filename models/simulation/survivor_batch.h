// A step while some ranks are away: the tokens that would be theirs are run by the others.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// `batch` with its tokens dealt over the ranks that are not `away` [ranks]: all of them in order, n tokens over k ranks
// as floor(n * (i + 1) / k) - floor(n * i / k) for the i-th.  What attention does for a rank is its share of the whole
// batch's, in proportion to its tokens, as if all were alike (AttentionOfTokens in models/schedule/batch_split.h).  The
// ids are shared with `batch`.  REQUIRES: some rank is there.
StepBatch DealOverSurvivors(const StepBatch& batch, absl::Span<const char> away);

}  // namespace epsim
