// Rows of a routing array on their way into a trace: what the importers share.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "traces/format/trace_writer.h"
#include "traces/import/import_trace.h"
#include "traces/import/npy.h"

namespace epsim {

// The header of a trace of `array`, [tokens, layers, top_k]; granularity, model and source are left to the caller.
absl::StatusOr<TraceHeader> HeaderForRows(const NpyArray& array, int64_t experts);

// The last part of the folder's path, for a trace's source line.
std::string FolderName(const std::string& folder);

class RoutedRowsWriter {
 public:
  static absl::StatusOr<std::unique_ptr<RoutedRowsWriter>> Create(const std::string& path, const TraceHeader& header,
                                                                  const TraceWriterOptions& options);

  // Appends rows [row, row + request.tokens()) of `array`: a request, or a whole step.  -1 is a missing id; another
  // negative one is an error.  Positions count on from the prompt in decode, from 0 otherwise.  `place`: where an error
  // is told to be, besides the array.  `scores`: [tokens, layers, experts] in the format of the header, or null.
  absl::Status Append(const NpyArray& array, int64_t row, const RequestInfo& request, TokenPhase phase,
                      const std::string& place, const NpyArray* scores = nullptr);
  absl::StatusOr<ImportReport> Finish(const std::string& format);

 private:
  RoutedRowsWriter(std::unique_ptr<TraceWriter> writer, const std::string& path, const TraceHeader& header)
      : writer_(std::move(writer)), path_(path), header_(header) {}

  std::unique_ptr<TraceWriter> writer_;
  const std::string path_;
  const TraceHeader header_;
  int64_t tokens_ = 0, appended_ = 0;
  std::vector<int32_t> rows_, step_;
  std::vector<uint32_t> position_;
  std::vector<uint8_t> phase_;
  std::vector<std::byte> step_scores_;
};

}  // namespace epsim
