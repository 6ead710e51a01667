#include <sys/stat.h>

#include <algorithm>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_decoder.h"
#include "traces/format/chunk_layout.h"
#include "traces/format/frame.h"
#include "traces/format/frame_writer.h"
#include "traces/format/mapped_file.h"
#include "traces/format/trace_reader.h"

namespace epsim {
namespace {

// Walks the frames of a file from its beginning, without its index.
class FrameWalk {
 public:
  explicit FrameWalk(std::string_view file) : file_(file) {}

  absl::Status ReadHeader() {
    RETURN_IF_ERROR(CheckPreamble(file_));
    ASSIGN_OR_RETURN(const Frame frame, ParseFrame(file_, kPreambleBytes));
    if (frame.type != FrameType::kHeader || !ParseMessage(frame, &header_)) {
      return absl::InvalidArgumentError(absl::StrCat("offset ", frame.offset, ": is not the header frame"));
    }
    RETURN_IF_ERROR(CheckTraceHeader(header_));
    sequence_ = std::make_unique<ChunkSequence>(header_.granularity());
    offset_ = frame.offset + frame.bytes;
    return absl::OkStatus();
  }

  // Reads on to the first chunk that is not sound, and says what is wrong with it; OK at a sound end of the file.
  absl::Status ReadChunks() {
    while (true) {
      ASSIGN_OR_RETURN(const Frame frame, ParseFrame(file_, offset_));
      if (frame.type == FrameType::kIndex) {
        RETURN_IF_ERROR(ParseTrailer(file_).status());
        return frame.offset + frame.bytes + kTrailerBytes == file_.size()
                   ? absl::OkStatus()
                   : absl::InvalidArgumentError(absl::StrCat("offset ", frame.offset + frame.bytes,
                                                             ": the trailer does not follow the index"));
      }
      if (absl::Status status = ReadChunk(frame); !status.ok()) {
        return absl::Status(status.code(),
                            absl::StrCat("chunk ", frames_.size(), " at offset ", offset_, ": ", status.message()));
      }
      frames_.push_back(frame);
      offset_ += frame.bytes;
    }
  }

  // Writes what was read as a trace of its own.
  absl::Status Copy(const std::string& path) const {
    ASSIGN_OR_RETURN(FrameWriter writer, FrameWriter::Create(path));
    RETURN_IF_ERROR(writer.WriteStart(header_));
    TraceIndex index;
    const int64_t tokens = sequence().tokens();
    for (const Frame& frame : frames_) {
      ChunkHeader chunk;
      EPSIM_CHECK(ParseMessage(frame, &chunk));
      for (RequestInfo& request : *chunk.mutable_requests()) {
        if (header_.granularity() != REQUEST) break;
        request.set_tokens(std::min(request.tokens(), tokens - request.first_token()));
      }
      if (&frame == &frames_.back()) chunk.clear_step_continues();
      RETURN_IF_ERROR(writer.WriteChunk(chunk, frame.payload, &index));
    }
    index.set_tokens(tokens);
    index.set_steps(sequence().steps());
    index.set_requests(requests_);
    index.set_missing_ids(missing_ids_);
    return writer.WriteEnd(index);
  }

  const ChunkSequence& sequence() const { return *sequence_; }
  int64_t end() const { return static_cast<int64_t>(offset_); }  // Of the last sound chunk.

 private:
  absl::Status ReadChunk(const Frame& frame) {
    ChunkHeader chunk;
    if (frame.type != FrameType::kChunk || !ParseMessage(frame, &chunk)) {
      return absl::InvalidArgumentError("is not a chunk frame");
    }
    RETURN_IF_ERROR(CheckChunkHeader(header_, chunk, frame.payload.size()));
    RETURN_IF_ERROR(CheckStoredPayload(frame, chunk));
    const auto* raw = reinterpret_cast<const std::byte*>(frame.payload.data());
    if (chunk.codec() != ChunkHeader::RAW) {
      buffer_.resize(chunk.raw_bytes());
      raw = reinterpret_cast<const std::byte*>(buffer_.data());
      RETURN_IF_ERROR(Decompress(frame, chunk, reinterpret_cast<std::byte*>(buffer_.data())));
    }
    int64_t missing_ids;
    const int64_t requests = requests_ + chunk.requests_size();
    const TraceChunk located = LocateColumns(header_, chunk, raw);
    RETURN_IF_ERROR(CheckChunkValues(header_, located, requests, &missing_ids));
    if (header_.granularity() == STEP) RETURN_IF_ERROR(ranks_.Add(located));
    RETURN_IF_ERROR(sequence_->Add(chunk));
    requests_ = requests;
    missing_ids_ += missing_ids;
    return absl::OkStatus();
  }

  const std::string_view file_;
  TraceHeader header_;
  uint64_t offset_ = 0;
  std::vector<Frame> frames_;
  std::unique_ptr<ChunkSequence> sequence_;
  StepRankOrder ranks_;
  int64_t requests_ = 0, missing_ids_ = 0;
  std::string buffer_;
};

}  // namespace

absl::StatusOr<Recovery> RecoverTrace(const std::string& path, const std::string& recovered_path) {
  struct stat from, to;
  if (stat(path.c_str(), &from) == 0 && stat(recovered_path.c_str(), &to) == 0 && from.st_dev == to.st_dev &&
      from.st_ino == to.st_ino) {
    return absl::InvalidArgumentError(absl::StrCat(recovered_path, ": is the file to recover from"));
  }
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  FrameWalk walk(file->bytes());
  RETURN_IF_ERROR(InFile(path, walk.ReadHeader()));
  const absl::Status stopped = walk.ReadChunks();
  const ChunkSequence& sequence = walk.sequence();
  if (sequence.chunks() == 0) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": no complete chunk to save: ", stopped.message()));
  }
  RETURN_IF_ERROR(walk.Copy(recovered_path));

  Recovery recovery;
  recovery.chunks = sequence.chunks();
  recovery.tokens = sequence.tokens();
  if (!stopped.ok()) {
    recovery.lost_bytes = static_cast<int64_t>(file->bytes().size()) - walk.end();
    recovery.reason = std::string(stopped.message());
  }
  if (sequence.lacking_tokens() > 0) {
    absl::StrAppend(&recovery.reason, recovery.reason.empty() ? "" : "; ", "the last request lacks its last ",
                    sequence.lacking_tokens(), " tokens");
  }
  if (sequence.step_continues()) {
    absl::StrAppend(&recovery.reason, recovery.reason.empty() ? "" : "; ", "the last step lacks tokens");
  }
  return recovery;
}

}  // namespace epsim
