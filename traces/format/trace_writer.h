// Writes an .eptrace as a stream: memory holds one chunk, and a file whose writer was killed keeps every complete
// chunk.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "traces/format/trace.pb.h"

namespace epsim {

struct TraceWriterOptions {
  bool zstd = true;
  int zstd_level = 3;
  int64_t chunk_bytes = int64_t{8} << 20;  // A chunk is closed when its payload would exceed this; at most 1 GiB.
};

// What is known of the tokens of one Append besides their ids.  Spans hold one entry a token or are empty (unknown).
struct TokenColumns {
  absl::Span<const uint32_t> position;
  absl::Span<const uint32_t> request_index;
  absl::Span<const uint8_t> phase;  // TokenPhase.
  absl::Span<const uint16_t> source_rank;
  absl::Span<const std::byte> gate_weights;  // As the header's format says, in the order of the ids.
  absl::Span<const std::byte> scores;        // As the ids, with [experts] in the place of [top_k].
};

// Every Append checks its ids: below `experts`, distinct in one token's top-k; a negative id is a dropped one, is left
// out, and is counted.  An error names token, layer and id, and leaves the writer unusable.
class TraceWriter {
 public:
  // Fails on a header without layers, experts or top_k, or a file that cannot be created.  The file grows under its
  // own name, so that what a killed writer leaves can be recovered; Abandon(), or destruction before Finish(), removes
  // it.  schema_version and id_bytes may be left 0: the current one, and the smallest that fits.
  static absl::StatusOr<std::unique_ptr<TraceWriter>> Create(const std::string& path, const TraceHeader& header,
                                                             const TraceWriterOptions& options = {});
  virtual ~TraceWriter() = default;

  // REQUEST granularity: the whole next request.  ids: [tokens, layers, top_k], -1 where dropped; at least one token.
  // request.tokens may be 0 (taken from ids); first_token is set here.
  virtual absl::Status AppendRequest(const RequestInfo& request, absl::Span<const int32_t> ids,
                                     const TokenColumns& columns) = 0;
  // STEP granularity: the whole next step.  ids: [layers, tokens, top_k], -1 where dropped.  `requests`: those that
  // appear for the first time.
  virtual absl::Status AppendStep(absl::Span<const RequestInfo> requests, absl::Span<const int32_t> ids,
                                  const TokenColumns& columns) = 0;
  // COUNTS granularity: the next step.  counts: [layers, experts].
  virtual absl::Status AppendCounts(absl::Span<const uint32_t> counts) = 0;

  // Writes what is buffered, the index and the trailer.  Fails if nothing was appended.
  virtual absl::Status Finish() = 0;
  // Removes the file.
  virtual void Abandon() = 0;

  virtual int64_t tokens() const = 0;  // 0 in a COUNTS trace.
  virtual int64_t missing_ids() const = 0;
};

}  // namespace epsim
