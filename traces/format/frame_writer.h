// An .eptrace on its way to disk: frames are handed to the system as they come, so that what was written survives the
// process.  Unless WriteEnd() succeeds the file is removed again.
#pragma once

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/format/frame.h"
#include "traces/format/trace.pb.h"

namespace epsim {

class FrameWriter {
 public:
  // A regular file that is there is replaced, so that one who has it mapped keeps it.
  static absl::StatusOr<FrameWriter> Create(const std::string& path);
  FrameWriter(FrameWriter&& other) noexcept;
  FrameWriter& operator=(FrameWriter&&) = delete;
  ~FrameWriter() { Abandon(); }

  // The preamble and the header.
  absl::Status WriteStart(const TraceHeader& header);
  // A chunk with its payload as stored, and its place into `index`.
  absl::Status WriteChunk(const ChunkHeader& chunk, std::string_view payload, TraceIndex* index);
  // The index and the trailer; then the file is safe on disk and closed.
  absl::Status WriteEnd(const TraceIndex& index);
  // Removes the file (not a device or a pipe).  Nothing after WriteEnd.
  void Abandon();

 private:
  FrameWriter(std::string path, int file) : path_(std::move(path)), file_(file) {}
  absl::Status Write(std::string_view bytes);
  absl::Status WriteFrame(FrameType type, std::string_view message, std::string_view payload = {});

  std::string path_;
  int file_;           // Descriptor; -1 once closed.
  uint64_t size_ = 0;  // Written so far.
};

}  // namespace epsim
