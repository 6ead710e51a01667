// Brings routing that others recorded into an .eptrace.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/format/trace.pb.h"
#include "traces/format/trace_writer.h"

namespace epsim {

// What the source may not say.  What it does say must agree.
struct ImportOptions {
  std::string model;
  int experts = 0;                   // Logical experts in a layer; 0: as the source says.
  TokenPhase phase = PHASE_UNKNOWN;  // Of every token of a source that does not say it.
  TraceWriterOptions writer;
};

struct ImportReport {
  std::string format;  // "NumPy folder", "vLLM routed_experts folder".
  TraceHeader header;
  int64_t tokens = 0;
  int64_t requests = 0;
  int64_t steps = 0;        // STEP granularity.
  int64_t missing_ids = 0;  // -1 in the source: dropped or padded.
};

// Recognises what lies at `source`, a folder, and writes it to `out_path`.  An error names file, place and value;
// `out_path` is then as it was.  An id twice in one top-k is an error: it says that the capture is not what it seems.
absl::StatusOr<ImportReport> ImportTrace(const std::string& source, const ImportOptions& options,
                                         const std::string& out_path, const StopToken& stop);

}  // namespace epsim
