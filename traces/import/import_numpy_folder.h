// A folder of `routed_experts.npy` [tokens, layers, top_k], `requests.jsonl` and `meta.json`, and optionally `scores.npy`
// [tokens, layers, experts], float16 or float32: the router's scores of each expert before selection.
//
// meta.json: {"model", "layers", "experts", "top_k", "granularity": "request" or "step", and optionally "phase",
// "tokens", "requests" (lines of requests.jsonl)}.
// requests.jsonl, one line per run of rows, in the order of the rows and leaving none out: {"request": id,
// "first_token": row, "tokens", "phase": "prefill" or "decode", and optionally "prompt_tokens", "domain" (or "dataset",
// or "category"), "step"}.
// Where the granularity is "step" a line is one engine step, all its requests together: the trace gets STEP granularity
// and knows neither requests nor positions.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/import/import_trace.h"

namespace epsim {

// An id of -1 is missing.  Memory: one request (or step).
absl::StatusOr<ImportReport> ImportNumpyFolder(const std::string& folder, const ImportOptions& options,
                                               const std::string& out_path, const StopToken& stop);

}  // namespace epsim
