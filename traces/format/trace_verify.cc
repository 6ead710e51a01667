#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/format/trace_reader.h"

namespace epsim {

absl::Status VerifyTrace(const std::string& path, const StopToken& stop) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(path));
  const TraceHeader& header = trace->header();
  int64_t missing_ids = 0, last_step = -1;
  int last_rank = 0;
  for (int64_t i = 0; i < trace->index().chunks_size(); ++i) {
    RETURN_IF_ERROR(stop.Check());
    ASSIGN_OR_RETURN(const TraceChunk chunk, trace->ReadChunk(i));
    const int64_t top_ks = chunk.valid_count == nullptr ? 0 : chunk.tokens * header.layers();
    for (int64_t k = 0; k < top_ks; ++k) missing_ids += header.top_k() - chunk.valid_count[k];
    // Within a chunk the order of ranks is checked by the reader; a step may go on from the chunk before.
    if (header.granularity() == STEP && chunk.source_rank != nullptr) {
      if (chunk.step == last_step && chunk.source_rank[0] < last_rank) {
        return absl::InvalidArgumentError(absl::StrCat(path, ": chunk ", i, ": token ", chunk.first_token,
                                                       ": source rank ", chunk.source_rank[0], " after ", last_rank,
                                                       " in one step"));
      }
      last_rank = chunk.source_rank[chunk.tokens - 1];
      last_step = chunk.step;
    }
  }
  if (missing_ids != trace->index().missing_ids()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the index says ", trace->index().missing_ids(),
                                                   " missing ids, the chunks have ", missing_ids));
  }
  return absl::OkStatus();
}

}  // namespace epsim
