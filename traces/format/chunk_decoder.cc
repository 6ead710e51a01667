#include "traces/format/chunk_decoder.h"

#include <zstd.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace epsim {

absl::Status CheckStoredPayload(const Frame& frame, const ChunkHeader& chunk) {
  const uint64_t computed = Xxh3(frame.payload);
  if (computed != chunk.payload_xxh3()) {
    return absl::InvalidArgumentError(absl::StrCat("damaged: the checksum of the payload is ",
                                                   absl::Hex(chunk.payload_xxh3(), absl::kZeroPad16), " in the file, ",
                                                   absl::Hex(computed, absl::kZeroPad16), " of its bytes"));
  }
  for (char c : frame.padding) {
    if (c != 0) return absl::InvalidArgumentError("damaged: the bytes behind the payload are not zero");
  }
  return absl::OkStatus();
}

absl::Status Decompress(const Frame& frame, const ChunkHeader& chunk, std::byte* raw) {
  // One context a thread: it keeps a window of memory that is dear to allocate for every chunk.
  thread_local const std::unique_ptr<ZSTD_DCtx, size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  const size_t size =
      ZSTD_decompressDCtx(context.get(), raw, chunk.raw_bytes(), frame.payload.data(), frame.payload.size());
  if (ZSTD_isError(size)) return absl::InvalidArgumentError(absl::StrCat("zstd: ", ZSTD_getErrorName(size)));
  if (size != chunk.raw_bytes()) {
    return absl::InvalidArgumentError(absl::StrCat("zstd: ", size, " bytes came out, not ", chunk.raw_bytes()));
  }
  return absl::OkStatus();
}

}  // namespace epsim
