// The bytes of an .eptrace: what lies where, so that a file can be read, checked and, when its end is missing, walked
// from its beginning.
//
// Everything begins at a multiple of 64 bytes; numbers are little-endian; gaps are zero.
//
//   preamble (64)   0 magic "\x89" "EPTRACE"   8 u32 schema version   12 u32 zero   16 u64 XXH3-64 of bytes [0, 16)
//                   magic and version keep their places in every version.
//   frame           0 magic "EPFRAME\n"        8 u64 checksum        16 u32 type   20 u32 message bytes
//                  24 u64 payload bytes       32 message, padded to 64, then payload, padded to 64
//                   checksum = XXH3-64, seeded with the frame's offset in the file, of the bytes from 16 to the
//                   payload; so a frame that was moved, or that lies inside a payload, is not taken for one of this
//                   file. The payload of a chunk has its own checksum, in the message.
//   trailer (64)    0 magic "EPTRAIL\n"        8 u64 offset of the index frame   16 u64 its bytes
//                  24 u64 XXH3-64 of bytes [0, 24)
//
// A file: preamble, one header frame, chunk frames, one index frame, trailer.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "google/protobuf/message_lite.h"

namespace epsim {

inline constexpr uint32_t kTraceSchemaVersion = 1;
inline constexpr uint64_t kTraceAlignment = 64;
inline constexpr uint64_t kPreambleBytes = 64;
inline constexpr uint64_t kTrailerBytes = 64;
// Longest message of a frame.
inline constexpr uint64_t kMaxMessageBytes = uint64_t{1} << 30;

// The next multiple of 64.  REQUIRES: bytes <= 2^63.
constexpr uint64_t Aligned(uint64_t bytes) { return (bytes + kTraceAlignment - 1) / kTraceAlignment * kTraceAlignment; }

enum class FrameType : uint32_t { kHeader = 1, kChunk = 2, kIndex = 3 };

struct Frame {
  FrameType type = FrameType::kHeader;
  uint64_t offset = 0;
  uint64_t bytes = 0;  // Of the whole frame, padding included.
  uint64_t checksum = 0;
  std::string_view message;
  std::string_view payload;
  std::string_view padding;  // After the payload.
};

struct Trailer {
  uint64_t index_offset = 0;
  uint64_t index_bytes = 0;
};

// XXH3-64 (Collet 2019).
uint64_t Xxh3(std::string_view bytes, uint64_t seed = 0);

std::string EncodePreamble();
// The frame at `offset` up to its payload.  REQUIRES: offset a multiple of 64, message at most kMaxMessageBytes.
std::string EncodeFrameHead(FrameType type, uint64_t offset, std::string_view message, uint64_t payload_bytes);
std::string EncodeTrailer(const Trailer& trailer);

// The functions below take the whole file.  Nothing outside it is read, whatever its bytes say; errors begin with the
// offset in it.

// Fails on an empty or foreign file, another schema version, or damage.
absl::Status CheckPreamble(std::string_view file);
// The frame at `offset`, its checksum verified; its payload is not looked at.  Fails with OutOfRange if the file ends
// before the frame does.
absl::StatusOr<Frame> ParseFrame(std::string_view file, uint64_t offset);
// Fails with OutOfRange if the file does not end in a trailer.
absl::StatusOr<Trailer> ParseTrailer(std::string_view file);

// Parses a frame's message.  Says nothing on stderr, which Protocol Buffers otherwise does of text that is not UTF-8.
bool ParseMessage(const Frame& frame, google::protobuf::MessageLite* message);

// `status` with "path: " before its message.
absl::Status InFile(const std::string& path, const absl::Status& status);

}  // namespace epsim
