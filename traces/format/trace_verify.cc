#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"
#include "traces/format/frame.h"
#include "traces/format/trace_reader.h"

namespace epsim {

absl::Status VerifyTrace(const std::string& path, const StopToken& stop) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> trace, TraceReader::Open(path));
  const TraceHeader& header = trace->header();
  int64_t missing_ids = 0;
  StepRankOrder ranks;
  for (int64_t i = 0; i < trace->index().chunks_size(); ++i) {
    RETURN_IF_ERROR(stop.Check());
    ASSIGN_OR_RETURN(const TraceChunk chunk, trace->ReadChunk(i));
    const int64_t top_ks = chunk.valid_count == nullptr ? 0 : chunk.tokens * header.layers();
    for (int64_t k = 0; k < top_ks; ++k) missing_ids += header.top_k() - chunk.valid_count[k];
    // The reader checks the order of ranks within a chunk only: it may be asked for the chunks in any order.
    if (header.granularity() != STEP) continue;
    if (const absl::Status status = ranks.Add(chunk); !status.ok()) {
      return InFile(path, absl::InvalidArgumentError(absl::StrCat("chunk ", i, ": ", status.message())));
    }
  }
  if (missing_ids != trace->index().missing_ids()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": the index says ", trace->index().missing_ids(),
                                                   " missing ids, the chunks have ", missing_ids));
  }
  return absl::OkStatus();
}

}  // namespace epsim
