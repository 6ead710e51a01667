// The rows of a request trace where they lie in its chunks, whatever row is asked for.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "traces/format/trace_reader.h"

namespace epsim {

// Keeps the columns' addresses of every chunk visited (some 100 bytes for chunks of megabytes), never their contents.
class TraceRows {
 public:
  // REQUIRES: `trace` has REQUEST granularity and raw chunks, and outlives this.
  explicit TraceRows(const TraceReader& trace);

  const TraceReader& trace() const { return trace_; }

  // The chunk that holds `row`; `hint` is a chunk to try first, and becomes that chunk.  The first visit of a chunk
  // verifies it; an error is what the reader found.  The pointer is valid as long as this.
  absl::StatusOr<const TraceChunk*> Find(int64_t row, uint32_t* hint);

  // How many of the request's first rows are prefill: those before its first row that is not.  A row whose phase is not
  // recorded counts as decode.
  absl::StatusOr<int64_t> PrefillRows(const RequestInfo& request);

 private:
  const TraceReader& trace_;
  std::vector<TraceChunk> chunks_;  // tokens == 0: not visited.
  uint32_t prefill_hint_ = 0;
};

}  // namespace epsim
