// Reads an .eptrace through a memory map: raw chunks are used where they lie, so that anonymous memory does not grow
// with the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/stop_token.h"
#include "traces/format/trace.pb.h"

namespace epsim {

// One chunk, decoded.  Pointers are valid as long as the reader for raw chunks, until the next ReadChunk otherwise.
struct TraceChunk {
  int64_t first_token = 0;         // COUNTS: the first step.
  int64_t tokens = 0;              // COUNTS: the number of steps.
  int64_t step = 0;                // STEP: the step; COUNTS: the first step.
  const std::byte* ids = nullptr;  // REQUEST: [tokens, layers, top_k]; STEP: [layers, tokens, top_k].
  const uint8_t* valid_count =
      nullptr;  // [tokens, layers] or [layers, tokens]; null: all have top_k.  Places behind are 0.
  const uint32_t* position = nullptr;       // [tokens]; null where not recorded, as all below.
  const uint32_t* request_index = nullptr;  // [tokens], index into requests().
  const uint8_t* phase = nullptr;           // [tokens], TokenPhase.
  const uint16_t* source_rank = nullptr;    // [tokens].
  const std::byte* gate_weights = nullptr;  // In the order of the ids.
  const std::byte* scores = nullptr;        // As the ids, with [experts] in the place of [top_k].
  const uint32_t* counts = nullptr;         // COUNTS: [steps, layers, experts].
};

class TraceReader {
 public:
  // Opens a complete file.  Errors name file and byte offset: not an eptrace, other schema version, truncated (says how
  // to recover it), an index that contradicts the file.
  static absl::StatusOr<std::unique_ptr<TraceReader>> Open(const std::string& path);
  // As Open, but every chunk will be raw: a compressed file is first expanded, chunk by chunk, into an unnamed file in
  // `scratch_folder` that goes away with the reader.
  static absl::StatusOr<std::unique_ptr<TraceReader>> OpenRaw(const std::string& path,
                                                              const std::string& scratch_folder, const StopToken& stop);
  virtual ~TraceReader() = default;

  virtual const std::string& path() const = 0;
  virtual const TraceHeader& header() const = 0;
  virtual const TraceIndex& index() const = 0;
  // All requests, in order of first appearance.
  virtual absl::Span<const RequestInfo> requests() const = 0;
  // XXH3-64 over the header and the checksums of the chunks, as 16 hex digits: what reports quote as the trace's hash.
  virtual std::string hash() const = 0;

  // The `chunk`-th chunk.  The first visit verifies its checksum and, unless counts, every id (range, distinct in a
  // top-k); an error names file, chunk, token, layer and value.  Thread-safe for raw chunks.
  virtual absl::StatusOr<TraceChunk> ReadChunk(int64_t chunk) const = 0;
  // The chunk that holds row `token`; of a COUNTS trace, step `token`.  REQUIRES: the row exists.
  virtual int64_t ChunkOfToken(int64_t token) const = 0;
};

// What is left of a file, complete or not: every chunk before the first that is incomplete or damaged is copied to
// `recovered_path` as a complete trace.  What follows a hole is lost: its place in time is not known.
struct Recovery {
  int64_t chunks = 0, tokens = 0;
  int64_t lost_bytes = 0;  // After the last complete chunk.
  std::string reason;  // Why reading stopped, and whether the last request or step is cut; empty for a complete file.
};
// Fails if there is no complete chunk (nothing is written then), or `recovered_path` is the same file.
absl::StatusOr<Recovery> RecoverTrace(const std::string& path, const std::string& recovered_path);

// Reads everything: framing, checksums, ids, index against chunks.  OK if the file is sound.
absl::Status VerifyTrace(const std::string& path, const StopToken& stop);

}  // namespace epsim
