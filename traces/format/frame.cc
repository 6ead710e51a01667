#include "traces/format/frame.h"

#include <bit>
#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "google/protobuf/stubs/logging.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

namespace epsim {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are stored as this machine holds them");

constexpr std::string_view kPreambleMagic(
    "\x89"
    "EPTRACE",
    8);
constexpr std::string_view kFrameMagic("EPFRAME\n", 8);
constexpr std::string_view kTrailerMagic("EPTRAIL\n", 8);
constexpr uint64_t kFrameFixedBytes = 32;
constexpr uint64_t kChecksumFrom = 16;  // In a frame.

template <typename T>
T Load(std::string_view bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <typename T>
void Store(T value, uint64_t offset, std::string& bytes) {
  std::memcpy(bytes.data() + offset, &value, sizeof value);
}

absl::Status Damaged(uint64_t offset, std::string_view what, uint64_t stored, uint64_t computed) {
  return absl::InvalidArgumentError(absl::StrCat(
      "offset ", offset, ": damaged: the checksum of the ", absl::string_view(what.data(), what.size()), " is ",
      absl::Hex(stored, absl::kZeroPad16), " in the file, ", absl::Hex(computed, absl::kZeroPad16), " of its bytes"));
}

bool IsZero(std::string_view bytes) {
  for (char c : bytes) {
    if (c != 0) return false;
  }
  return true;
}

}  // namespace

uint64_t Xxh3(std::string_view bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }

std::string EncodePreamble() {
  std::string bytes(kPreambleBytes, '\0');
  bytes.replace(0, kPreambleMagic.size(), kPreambleMagic);
  Store(kTraceSchemaVersion, 8, bytes);
  Store(Xxh3(std::string_view(bytes).substr(0, 16)), 16, bytes);
  return bytes;
}

std::string EncodeFrameHead(FrameType type, uint64_t offset, std::string_view message, uint64_t payload_bytes) {
  EPSIM_CHECK(offset % kTraceAlignment == 0);
  EPSIM_CHECK(message.size() <= kMaxMessageBytes);
  std::string bytes(Aligned(kFrameFixedBytes + message.size()), '\0');
  bytes.replace(0, kFrameMagic.size(), kFrameMagic);
  Store(static_cast<uint32_t>(type), 16, bytes);
  Store(static_cast<uint32_t>(message.size()), 20, bytes);
  Store(payload_bytes, 24, bytes);
  bytes.replace(kFrameFixedBytes, message.size(), message);
  Store(Xxh3(std::string_view(bytes).substr(kChecksumFrom), offset), 8, bytes);
  return bytes;
}

std::string EncodeTrailer(const Trailer& trailer) {
  std::string bytes(kTrailerBytes, '\0');
  bytes.replace(0, kTrailerMagic.size(), kTrailerMagic);
  Store(trailer.index_offset, 8, bytes);
  Store(trailer.index_bytes, 16, bytes);
  Store(Xxh3(std::string_view(bytes).substr(0, 24)), 24, bytes);
  return bytes;
}

absl::Status CheckPreamble(std::string_view file) {
  if (file.empty()) return absl::InvalidArgumentError("offset 0: not an eptrace: the file is empty");
  const std::string_view start = file.substr(0, kPreambleMagic.size());
  if (start != kPreambleMagic.substr(0, start.size())) {
    return absl::InvalidArgumentError(absl::StrCat("offset 0: not an eptrace: the file starts with \"",
                                                   absl::CHexEscape(absl::string_view(start.data(), start.size())),
                                                   "\""));
  }
  if (file.size() < kPreambleBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset ", file.size(), ": truncated: the file ends inside its first ", kPreambleBytes, " bytes"));
  }
  const auto version = Load<uint32_t>(file, 8);
  if (version != kTraceSchemaVersion) {
    return absl::InvalidArgumentError(absl::StrCat("offset 8: schema version ", version,
                                                   " of the eptrace format is not supported; this program reads "
                                                   "version ",
                                                   kTraceSchemaVersion));
  }
  const auto stored = Load<uint64_t>(file, 16);
  const uint64_t computed = Xxh3(file.substr(0, 16));
  if (stored != computed) return Damaged(16, "preamble", stored, computed);
  if (!IsZero(file.substr(24, kPreambleBytes - 24))) {
    return absl::InvalidArgumentError("offset 24: damaged: the end of the preamble is not zero");
  }
  return absl::OkStatus();
}

absl::StatusOr<Frame> ParseFrame(std::string_view file, uint64_t offset) {
  if (offset % kTraceAlignment != 0) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", offset, ": no frame can begin here"));
  }
  const uint64_t left = offset <= file.size() ? file.size() - offset : 0;
  const auto ends_early = [&](std::string_view part) {
    return absl::OutOfRangeError(absl::StrCat("offset ", file.size(), ": truncated: the file ends inside ",
                                              absl::string_view(part.data(), part.size()), " of the frame at offset ",
                                              offset));
  };
  if (left < kFrameFixedBytes) return ends_early("the start");
  const std::string_view frame = file.substr(offset);
  if (frame.substr(0, kFrameMagic.size()) != kFrameMagic) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset ", offset, ": damaged: a frame should begin here, found \"",
                     absl::CHexEscape(absl::string_view(frame.data(), kFrameMagic.size())), "\""));
  }
  const auto type = Load<uint32_t>(frame, 16);
  const auto message_bytes = Load<uint32_t>(frame, 20);
  const auto payload_bytes = Load<uint64_t>(frame, 24);
  const uint64_t head_bytes = Aligned(kFrameFixedBytes + uint64_t{message_bytes});
  if (message_bytes > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("offset ", offset + 20, ": damaged: a message of ", message_bytes, " bytes is too long"));
  }
  if (left < head_bytes) return ends_early("the message");
  const auto stored = Load<uint64_t>(frame, 8);
  const uint64_t computed = Xxh3(frame.substr(kChecksumFrom, head_bytes - kChecksumFrom), offset);
  if (stored != computed) return Damaged(offset + 8, "frame", stored, computed);
  if (type < 1 || type > 3) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", offset + 16, ": unknown frame type ", type));
  }
  // The last comparison cannot overflow: payload_bytes is at most the file's size by then.
  if (payload_bytes > left - head_bytes || Aligned(payload_bytes) > left - head_bytes) return ends_early("the payload");
  return Frame{.type = static_cast<FrameType>(type),
               .offset = offset,
               .bytes = head_bytes + Aligned(payload_bytes),
               .checksum = stored,
               .message = frame.substr(kFrameFixedBytes, message_bytes),
               .payload = frame.substr(head_bytes, payload_bytes),
               .padding = frame.substr(head_bytes + payload_bytes, Aligned(payload_bytes) - payload_bytes)};
}

absl::StatusOr<Trailer> ParseTrailer(std::string_view file) {
  const auto missing = [&] {
    return absl::OutOfRangeError(absl::StrCat("offset ", file.size(),
                                              ": no index at the end: the writer did not finish; `epsim trace verify "
                                              "--recover OUT FILE` saves its complete chunks"));
  };
  if (file.size() < kPreambleBytes + kTrailerBytes || file.size() % kTraceAlignment != 0) return missing();
  const uint64_t offset = file.size() - kTrailerBytes;
  const std::string_view bytes = file.substr(offset);
  if (bytes.substr(0, kTrailerMagic.size()) != kTrailerMagic) return missing();
  const auto stored = Load<uint64_t>(bytes, 24);
  const uint64_t computed = Xxh3(bytes.substr(0, 24));
  if (stored != computed) return Damaged(offset + 24, "trailer", stored, computed);
  if (!IsZero(bytes.substr(32))) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", offset + 32,
                                                   ": damaged: the end of the trailer is not "
                                                   "zero"));
  }
  const Trailer trailer{.index_offset = Load<uint64_t>(bytes, 8), .index_bytes = Load<uint64_t>(bytes, 16)};
  if (trailer.index_offset > offset || trailer.index_bytes != offset - trailer.index_offset) {
    return absl::InvalidArgumentError(absl::StrCat("offset ", offset + 8, ": the trailer points to an index of ",
                                                   trailer.index_bytes, " bytes at offset ", trailer.index_offset,
                                                   ", which does not end at the trailer"));
  }
  return trailer;
}

bool ParseMessage(const Frame& frame, google::protobuf::MessageLite* message) {
  const google::protobuf::LogSilencer silence;
  return message->ParseFromArray(frame.message.data(), static_cast<int>(frame.message.size()));
}

absl::Status InFile(const std::string& path, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat(path, ": ", status.message()));
}

}  // namespace epsim
