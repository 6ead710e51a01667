#include "traces/workload/trace_rows.h"

#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {

TraceRows::TraceRows(const TraceReader& trace)
    : trace_(trace), chunks_(static_cast<size_t>(trace.index().chunks_size())) {}

absl::StatusOr<const TraceChunk*> TraceRows::Find(int64_t row, uint32_t* hint) {
  const auto holds = [row](const TraceChunk& chunk) {
    return row >= chunk.first_token && row < chunk.first_token + chunk.tokens;
  };
  if (*hint < chunks_.size() && holds(chunks_[*hint])) return &chunks_[*hint];
  const int64_t found = trace_.ChunkOfToken(row);
  TraceChunk& chunk = chunks_[found];
  if (chunk.tokens == 0) {
    ASSIGN_OR_RETURN(chunk, trace_.ReadChunk(found));
    EPSIM_CHECK(holds(chunk));
  }
  *hint = static_cast<uint32_t>(found);
  return &chunk;
}

absl::StatusOr<int64_t> TraceRows::PrefillRows(const RequestInfo& request) {
  const int64_t end = request.first_token() + request.tokens();
  for (int64_t row = request.first_token(); row < end;) {
    ASSIGN_OR_RETURN(const TraceChunk* chunk, Find(row, &prefill_hint_));
    const int64_t chunk_end = chunk->first_token + chunk->tokens;
    for (; row < end && row < chunk_end; ++row) {
      if (chunk->phase == nullptr || chunk->phase[row - chunk->first_token] != PREFILL) {
        return row - request.first_token();
      }
    }
  }
  return request.tokens();
}

}  // namespace epsim
