// The steps of a trace that was captured step by step, as they were.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_source.h"

namespace epsim {

// STEP granularity.  A trace captured on S ranks is replayed on R ranks where one divides the other: with R <= S the
// tokens of source rank s go to rank s * R / S (neighbours are merged); with R > S the tokens of source rank s are
// dealt over ranks [s * R / S, (s + 1) * R / S), in order and evenly.  Without source ranks all tokens of a step are
// dealt over the ranks in the same way.
//
// A step that lies in one chunk with its tokens in the order of their ranks is used where it lies; any other is put
// together in one buffer that is used again for the next.
//
// Scores stay where they lie, whichever way.
//
// `max_steps` 0: no limit.  REQUIRES: raw chunks; `trace` outlives the source.
absl::StatusOr<std::unique_ptr<StepSource>> NewRecordedSteps(int64_t max_steps, const TraceReader& trace, int ranks,
                                                             const StepContents& contents = {});

// COUNTS granularity: tokens per expert and layer, and no more.  A layer's tokens are its counts over top_k, rounded
// up; a step's are the most of any layer, dealt over the ranks evenly, and taken to be decode tokens without a past.
absl::StatusOr<std::unique_ptr<StepSource>> NewRecordedCounts(int64_t max_steps, const TraceReader& trace, int ranks);

}  // namespace epsim
