// A folder of the `routed_experts` arrays that vLLM returns with each request (`enable_return_routed_experts`), saved
// one a file: *.npy, int16 [tokens, layers, top_k].  Requests are numbered in the order of the file names.  The number
// of experts is in no array: it comes from an option or from a meta.json beside ({"experts", and optionally "model",
// "layers", "top_k", "phase"}).
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/import/import_trace.h"

namespace epsim {

// An id of -1 is missing (dropped or padded).  Memory: one request.
absl::StatusOr<ImportReport> ImportVllmFolder(const std::string& folder, const ImportOptions& options,
                                              const std::string& out_path, const StopToken& stop);

}  // namespace epsim
