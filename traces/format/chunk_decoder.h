// From the bytes of a chunk as stored to its columns: checksum, then decompression.
#pragma once

#include <cstddef>

#include "absl/status/status.h"
#include "traces/format/frame.h"
#include "traces/format/trace.pb.h"

namespace epsim {

// Checksum of the stored payload, and zeros behind it.
absl::Status CheckStoredPayload(const Frame& frame, const ChunkHeader& chunk);

// Decompresses a zstd payload into `raw`, which has room for chunk.raw_bytes(); exactly that many must come out.
absl::Status Decompress(const Frame& frame, const ChunkHeader& chunk, std::byte* raw);

}  // namespace epsim
