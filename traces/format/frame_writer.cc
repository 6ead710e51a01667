#include "traces/format/frame_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {

absl::StatusOr<FrameWriter> FrameWriter::Create(const std::string& path) {
  struct stat facts;
  if (lstat(path.c_str(), &facts) == 0 && S_ISREG(facts.st_mode)) unlink(path.c_str());
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file < 0) return absl::UnavailableError(absl::StrCat(path, ": cannot create: ", std::strerror(errno)));
  return FrameWriter(path, file);
}

FrameWriter::FrameWriter(FrameWriter&& other) noexcept
    : path_(std::move(other.path_)), file_(std::exchange(other.file_, -1)), size_(other.size_) {}

absl::Status FrameWriter::WriteStart(const TraceHeader& header) {
  RETURN_IF_ERROR(Write(EncodePreamble()));
  return WriteFrame(FrameType::kHeader, header.SerializeAsString());
}

absl::Status FrameWriter::WriteChunk(const ChunkHeader& chunk, std::string_view payload, TraceIndex* index) {
  TraceIndex::Chunk& entry = *index->add_chunks();
  entry.set_offset(size_);
  entry.set_first_token(chunk.first_token());
  entry.set_tokens(chunk.tokens());
  entry.set_step(chunk.step());
  RETURN_IF_ERROR(WriteFrame(FrameType::kChunk, chunk.SerializeAsString(), payload));
  entry.set_bytes(size_ - entry.offset());
  return absl::OkStatus();
}

absl::Status FrameWriter::WriteEnd(const TraceIndex& index) {
  Trailer trailer{.index_offset = size_};
  RETURN_IF_ERROR(WriteFrame(FrameType::kIndex, index.SerializeAsString()));
  trailer.index_bytes = size_ - trailer.index_offset;
  RETURN_IF_ERROR(Write(EncodeTrailer(trailer)));
  // Pipes and devices have nothing to sync.
  if (fsync(file_) != 0 && errno != EINVAL && errno != EROFS) {
    return absl::UnavailableError(absl::StrCat(path_, ": cannot write: ", std::strerror(errno)));
  }
  const int file = std::exchange(file_, -1);
  if (close(file) != 0) {
    const int error = errno;
    unlink(path_.c_str());
    return absl::UnavailableError(absl::StrCat(path_, ": cannot write: ", std::strerror(error)));
  }
  return absl::OkStatus();
}

void FrameWriter::Abandon() {
  if (file_ < 0) return;
  struct stat facts;
  if (fstat(file_, &facts) == 0 && S_ISREG(facts.st_mode)) unlink(path_.c_str());
  close(std::exchange(file_, -1));
}

absl::Status FrameWriter::Write(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(file_, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return absl::UnavailableError(absl::StrCat(path_, ": cannot write: ", std::strerror(errno)));
    bytes.remove_prefix(static_cast<size_t>(written));
    size_ += static_cast<uint64_t>(written);
  }
  return absl::OkStatus();
}

absl::Status FrameWriter::WriteFrame(FrameType type, std::string_view message, std::string_view payload) {
  if (message.size() > kMaxMessageBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": a frame's message of ", message.size(), " bytes is too long"));
  }
  RETURN_IF_ERROR(Write(EncodeFrameHead(type, size_, message, payload.size())));
  RETURN_IF_ERROR(Write(payload));
  return Write(std::string(Aligned(payload.size()) - payload.size(), '\0'));
}

}  // namespace epsim
