#include "traces/format/trace_reader.h"

#include <zstd.h>

#include <algorithm>
#include <atomic>
#include <iterator>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "tbb/parallel_for.h"
#include "traces/format/chunk_decoder.h"
#include "traces/format/chunk_layout.h"
#include "traces/format/frame.h"
#include "traces/format/mapped_file.h"

namespace epsim {
namespace {

absl::Status Parse(const Frame& frame, FrameType type, const char* name, google::protobuf::MessageLite* message) {
  if (frame.type == type && ParseMessage(frame, message)) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("offset ", frame.offset, ": is not ", name));
}

absl::Status At(uint64_t offset, const absl::Status& status) {
  if (status.ok()) return status;
  return absl::Status(status.code(), absl::StrCat("offset ", offset, ": ", status.message()));
}

class EptraceReader : public TraceReader {
 public:
  EptraceReader(std::string path, std::unique_ptr<MappedFile> file) : path_(std::move(path)), file_(std::move(file)) {}

  // Everything but the payloads is read and checked here.
  absl::Status ReadFrames() {
    const std::string_view file = file_->bytes();
    RETURN_IF_ERROR(CheckPreamble(file));
    // A file that ends early says so, rather than that its end looks wrong.
    ASSIGN_OR_RETURN(const Trailer trailer, ParseTrailer(file));
    ASSIGN_OR_RETURN(const Frame head, ParseFrame(file, kPreambleBytes));
    RETURN_IF_ERROR(Parse(head, FrameType::kHeader, "the header frame", &header_));
    RETURN_IF_ERROR(At(head.offset, CheckTraceHeader(header_)));
    ASSIGN_OR_RETURN(const Frame tail, ParseFrame(file, trailer.index_offset));
    RETURN_IF_ERROR(Parse(tail, FrameType::kIndex, "the index frame", &index_));
    if (tail.bytes != trailer.index_bytes) {
      return absl::InvalidArgumentError(absl::StrCat("offset ", tail.offset, ": the index frame has ", tail.bytes,
                                                     " bytes, the trailer says ", trailer.index_bytes));
    }

    std::string checksums(head.message);
    ChunkSequence sequence(header_.granularity());
    uint64_t offset = head.offset + head.bytes;
    frames_.reserve(static_cast<size_t>(index_.chunks_size()));
    chunks_.reserve(static_cast<size_t>(index_.chunks_size()));
    for (const TraceIndex::Chunk& entry : index_.chunks()) {
      if (entry.offset() != offset) {
        return absl::InvalidArgumentError(absl::StrCat("offset ", tail.offset, ": the index has chunk ",
                                                       sequence.chunks(), " at offset ", entry.offset(), ", not ",
                                                       offset));
      }
      ASSIGN_OR_RETURN(const Frame frame, ParseFrame(file, offset));
      ChunkHeader chunk;
      RETURN_IF_ERROR(Parse(frame, FrameType::kChunk, "a chunk frame", &chunk));
      RETURN_IF_ERROR(At(offset, CheckChunkHeader(header_, chunk, frame.payload.size())));
      RETURN_IF_ERROR(At(offset, sequence.Add(chunk)));
      if (entry.bytes() != frame.bytes || entry.first_token() != chunk.first_token() ||
          entry.tokens() != chunk.tokens() || entry.step() != chunk.step()) {
        return absl::InvalidArgumentError(absl::StrCat("offset ", tail.offset, ": the index contradicts chunk ",
                                                       sequence.chunks() - 1, " at offset ", offset));
      }
      TraceChunk located;
      if (chunk.codec() == ChunkHeader::RAW) {
        located = LocateColumns(header_, chunk, reinterpret_cast<const std::byte*>(frame.payload.data()));
      } else {
        all_raw_ = false;
      }
      located.first_token = chunk.first_token();
      located.tokens = chunk.tokens();
      frames_.push_back(frame);
      chunks_.push_back(located);
      checksums.append(reinterpret_cast<const char*>(&frame.checksum), sizeof frame.checksum);
      offset += frame.bytes;
    }
    if (offset != tail.offset) {
      return absl::InvalidArgumentError(
          absl::StrCat("offset ", tail.offset, ": the index ends its chunks at offset ", offset));
    }
    RETURN_IF_ERROR(At(tail.offset, sequence.Finish()));
    if (index_.tokens() != sequence.tokens() || index_.steps() != sequence.steps() ||
        index_.requests() != sequence.requests()) {
      return absl::InvalidArgumentError(absl::StrCat("offset ", tail.offset, ": the index says ", index_.tokens(),
                                                     " tokens, ", index_.steps(), " steps, ", index_.requests(),
                                                     " requests; the chunks have ", sequence.tokens(), ", ",
                                                     sequence.steps(), ", ", sequence.requests()));
    }
    hash_ = absl::StrCat(absl::Hex(Xxh3(checksums), absl::kZeroPad16));
    verified_ = std::make_unique<std::atomic<bool>[]>(chunks_.size());
    return absl::OkStatus();
  }

  // Decodes what is compressed into a scratch file, so that every chunk is raw.
  absl::Status Expand(const std::string& scratch_folder, const StopToken& stop) {
    if (all_raw_) return absl::OkStatus();
    std::vector<uint64_t> place(frames_.size());
    uint64_t bytes = 0;
    for (size_t i = 0; i < frames_.size(); ++i) {
      place[i] = bytes;
      if (!IsRaw(i)) bytes += HeaderOf(i).raw_bytes();
    }
    ASSIGN_OR_RETURN(scratch_, MappedFile::CreateUnnamed(scratch_folder, bytes));
    // Every chunk has its own place, so the order of decoding does not matter; the first error in file order is told.
    std::vector<absl::Status> status(frames_.size());
    tbb::parallel_for(size_t{0}, frames_.size(), [&](size_t i) {
      if (IsRaw(i)) return;
      status[i] = stop.Check();
      if (!status[i].ok()) return;
      auto* raw = reinterpret_cast<std::byte*>(scratch_->writable() + place[i]);
      absl::StatusOr<TraceChunk> decoded = Decode(i, HeaderOf(i), raw);
      status[i] = decoded.status();
      if (decoded.ok()) chunks_[i] = *decoded;
    });
    for (const absl::Status& s : status) RETURN_IF_ERROR(s);
    all_raw_ = true;
    return absl::OkStatus();
  }

  const std::string& path() const override { return path_; }
  const TraceHeader& header() const override { return header_; }
  const TraceIndex& index() const override { return index_; }
  absl::Span<const RequestInfo> requests() const override {
    // Read when first asked for: a replay of recorded steps needs none of them, and a long trace has many.
    std::call_once(requests_read_, [this] {
      requests_.reserve(static_cast<size_t>(index_.requests()));
      for (size_t i = 0; i < frames_.size(); ++i) {
        ChunkHeader chunk = HeaderOf(i);
        requests_.insert(requests_.end(), std::make_move_iterator(chunk.mutable_requests()->begin()),
                         std::make_move_iterator(chunk.mutable_requests()->end()));
      }
    });
    return requests_;
  }
  std::string hash() const override { return hash_; }

  absl::StatusOr<TraceChunk> ReadChunk(int64_t chunk) const override {
    EPSIM_CHECK(chunk >= 0 && chunk < static_cast<int64_t>(chunks_.size()));
    const auto i = static_cast<size_t>(chunk);
    if (!IsRaw(i)) {
      const ChunkHeader header = HeaderOf(i);
      buffer_.resize(header.raw_bytes() / sizeof(AlignedBlock));
      return Decode(i, header, reinterpret_cast<std::byte*>(buffer_.data()));
    }
    if (!verified_[i].load(std::memory_order_acquire)) {
      RETURN_IF_ERROR(InChunk(i, CheckStoredPayload(frames_[i], HeaderOf(i))));
      RETURN_IF_ERROR(CheckValues(i, chunks_[i]));
      verified_[i].store(true, std::memory_order_release);
    }
    return chunks_[i];
  }

  int64_t ChunkOfToken(int64_t token) const override {
    EPSIM_CHECK(token >= 0 && token < chunks_.back().first_token + chunks_.back().tokens);
    const auto after = std::upper_bound(chunks_.begin(), chunks_.end(), token,
                                        [](int64_t t, const TraceChunk& chunk) { return t < chunk.first_token; });
    return after - chunks_.begin() - 1;
  }

 private:
  struct alignas(64) AlignedBlock {
    std::byte bytes[64];
  };

  bool IsRaw(size_t i) const { return chunks_[i].ids != nullptr || chunks_[i].counts != nullptr; }
  // Parsed again where it is needed: kept, the headers would grow with the trace.
  ChunkHeader HeaderOf(size_t i) const {
    ChunkHeader header;
    EPSIM_CHECK(ParseMessage(frames_[i], &header));
    return header;
  }
  absl::Status InChunk(size_t i, const absl::Status& status) const {
    if (status.ok()) return status;
    return absl::Status(status.code(),
                        absl::StrCat(path_, ": chunk ", i, " at offset ", frames_[i].offset, ": ", status.message()));
  }
  absl::Status CheckValues(size_t i, const TraceChunk& chunk) const {
    int64_t missing_ids;
    return InChunk(i, CheckChunkValues(header_, chunk, index_.requests(), &missing_ids));
  }
  // Decompresses into `raw`, which has room for the chunk's raw_bytes; all is checked if this is the first visit.
  absl::StatusOr<TraceChunk> Decode(size_t i, const ChunkHeader& header, std::byte* raw) const {
    const bool verified = verified_[i].load(std::memory_order_acquire);
    if (!verified) RETURN_IF_ERROR(InChunk(i, CheckStoredPayload(frames_[i], header)));
    RETURN_IF_ERROR(InChunk(i, Decompress(frames_[i], header, raw)));
    const TraceChunk chunk = LocateColumns(header_, header, raw);
    if (!verified) RETURN_IF_ERROR(CheckValues(i, chunk));
    verified_[i].store(true, std::memory_order_release);
    return chunk;
  }

  const std::string path_;
  std::unique_ptr<MappedFile> file_, scratch_;
  TraceHeader header_;
  TraceIndex index_;
  mutable std::once_flag requests_read_;
  mutable std::vector<RequestInfo> requests_;
  std::string hash_;
  std::vector<Frame> frames_;       // Of the chunks.
  std::vector<TraceChunk> chunks_;  // Where a chunk is compressed, without its columns.
  std::unique_ptr<std::atomic<bool>[]> verified_;
  bool all_raw_ = true;
  mutable std::vector<AlignedBlock> buffer_;  // The last compressed chunk that was read.
};

absl::StatusOr<std::unique_ptr<EptraceReader>> OpenFrames(const std::string& path) {
  ASSIGN_OR_RETURN(std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  auto reader = std::make_unique<EptraceReader>(path, std::move(file));
  RETURN_IF_ERROR(InFile(path, reader->ReadFrames()));
  return reader;
}

}  // namespace

absl::StatusOr<std::unique_ptr<TraceReader>> TraceReader::Open(const std::string& path) { return OpenFrames(path); }

absl::StatusOr<std::unique_ptr<TraceReader>> TraceReader::OpenRaw(const std::string& path,
                                                                  const std::string& scratch_folder,
                                                                  const StopToken& stop) {
  ASSIGN_OR_RETURN(std::unique_ptr<EptraceReader> reader, OpenFrames(path));
  RETURN_IF_ERROR(reader->Expand(scratch_folder, stop));
  return reader;
}

}  // namespace epsim
