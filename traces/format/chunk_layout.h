// What a chunk of a given trace may hold and where each column lies in its payload.  The writer and every reader agree
// through this file, and a reader trusts no size that it has not checked here.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/format/trace.pb.h"
#include "traces/format/trace_reader.h"

namespace epsim {

inline constexpr int64_t kMaxChunkBytes = int64_t{1} << 30;  // Of a payload before compression.

// Bytes of one number; 0 for NUMBER_FORMAT_NONE.
int NumberBytes(NumberFormat format);

// Bytes of `kind` for one token (one step of a COUNTS trace); 0 where the trace's header does not allow it.
int64_t ColumnBytesPerToken(const TraceHeader& header, Column::Kind kind);

// Whether the header describes a trace: shapes within bounds (layers 65,536; top_k 255 and at most experts; experts
// 256 where ids have one byte, else 65,536), known formats, a token that fits in a chunk.
absl::Status CheckTraceHeader(const TraceHeader& header);

// Whether the columns are those that the trace may have, in ascending order of kind, with the sizes that follow from
// `chunk.tokens`, and raw_bytes and `stored_bytes` agree with them.  After this every size is at most kMaxChunkBytes.
absl::Status CheckChunkHeader(const TraceHeader& header, const ChunkHeader& chunk, uint64_t stored_bytes);

// Pointers into `payload`, the chunk's raw bytes.  REQUIRES: CheckChunkHeader passed.
TraceChunk LocateColumns(const TraceHeader& header, const ChunkHeader& chunk, const std::byte* payload);

// The values of a decoded chunk: ids below `experts` and distinct among the valid ones of a top-k, valid counts at most
// top_k, phases known, requests among the `requests` first ones, source ranks known and, in a STEP trace, in order.
// An error names token, layer and value.  `missing_ids`: how many of the [tokens, layers, top_k] are not there.
absl::Status CheckChunkValues(const TraceHeader& header, const TraceChunk& chunk, int64_t requests,
                              int64_t* missing_ids);

// Across the chunks of one step: the source ranks go on in order.  Chunks are given in the order of the file.
class StepRankOrder {
 public:
  // An error changes nothing.
  absl::Status Add(const TraceChunk& chunk);

 private:
  int64_t step_ = -1;
  int rank_ = 0;  // Of the last token of step_.
};

// Walks the chunks of a file in order and checks that they tile it: tokens and steps count up without a gap, and the
// requests of a REQUEST trace cover the tokens one after another.
class ChunkSequence {
 public:
  explicit ChunkSequence(Granularity granularity) : granularity_(granularity) {}

  // REQUIRES: CheckChunkHeader passed.  An error changes nothing.
  absl::Status Add(const ChunkHeader& chunk);
  // After the last chunk: whether the last request and the last step are whole.
  absl::Status Finish() const;
  // Tokens that the requests so far need beyond those that are there (REQUEST).
  int64_t lacking_tokens() const { return granularity_ == REQUEST ? covered_ - rows_ : 0; }
  bool step_continues() const { return step_continues_; }

  int64_t chunks() const { return chunks_; }
  int64_t tokens() const { return granularity_ == COUNTS ? 0 : rows_; }
  int64_t steps() const { return granularity_ == COUNTS ? rows_ : granularity_ == STEP ? step_ + 1 : 0; }
  int64_t requests() const { return requests_; }

 private:
  Granularity granularity_;
  int64_t chunks_ = 0, rows_ = 0, step_ = -1, covered_ = 0, requests_ = 0;
  bool step_continues_ = false;
};

}  // namespace epsim
