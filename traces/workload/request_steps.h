// Steps composed from the requests of a trace: continuous batching and lock-step.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/request_composer.h"
#include "traces/workload/step_source.h"

namespace epsim {

// Each step gathers its rows from the memory map of the trace into one buffer that is used again for the next step;
// scores stay where they lie.
//
// Requests run in the order of the trace.  Where ranks * requests_per_rank places are more than the trace has requests
// (of at least one token), the supply is drawn with replacement from them, by RandomStream(seed, "workload.resample"):
// twice as many as there are places in continuous batching, one group in lock-step.
//
// The context of a token is its recorded position; where positions are not recorded, the request's prompt_tokens plus
// the token's place among its recorded tokens.  Positions of one request are taken to be consecutive in a chunk.
//
// `max_steps` 0: no limit.  `stop` ends the composition of the whole replay in advance, which counts its steps.
// REQUIRES: `trace` has REQUEST granularity and raw chunks, and outlives the source.
absl::StatusOr<std::unique_ptr<StepSource>> NewRequestSteps(const CompositionRules& rules, int64_t max_steps,
                                                            const TraceReader& trace, uint64_t seed,
                                                            const StopToken& stop, const StepContents& contents = {});

}  // namespace epsim
