#include "traces/import/routed_rows.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"

namespace epsim {
namespace {

// [tokens, layers, size] to [layers, tokens, size].
template <typename T>
void ByLayer(absl::Span<const T> rows, int64_t tokens, int64_t layers, int64_t size, std::vector<T>& out) {
  out.resize(rows.size());
  for (int64_t token = 0; token < tokens; ++token) {
    for (int64_t layer = 0; layer < layers; ++layer) {
      std::copy_n(rows.begin() + (token * layers + layer) * size, size, out.begin() + (layer * tokens + token) * size);
    }
  }
}

}  // namespace

absl::StatusOr<TraceHeader> HeaderForRows(const NpyArray& array, int64_t experts) {
  const absl::Span<const int64_t> shape = array.shape();
  if (shape.size() != 3 || shape[0] < 1 || shape[1] < 1 || shape[1] > 65536 || shape[2] < 1 || shape[2] > 255) {
    return absl::InvalidArgumentError(
        absl::StrCat(array.path(), ": has shape ", array.ShapeText(), ", not [tokens, layers, top_k]"));
  }
  TraceHeader header;
  header.set_layers(static_cast<uint32_t>(shape[1]));
  header.set_experts(static_cast<uint32_t>(experts));
  header.set_id_bytes(experts <= 256 ? 1 : 2);
  header.set_top_k(static_cast<uint32_t>(shape[2]));
  return header;
}

std::string FolderName(const std::string& folder) {
  const std::filesystem::path path = std::filesystem::path(folder).lexically_normal();
  return (path.has_filename() ? path.filename() : path.parent_path().filename()).string();
}

absl::StatusOr<std::unique_ptr<RoutedRowsWriter>> RoutedRowsWriter::Create(const std::string& path,
                                                                           const TraceHeader& header,
                                                                           const TraceWriterOptions& options) {
  ASSIGN_OR_RETURN(std::unique_ptr<TraceWriter> writer, TraceWriter::Create(path, header, options));
  return std::unique_ptr<RoutedRowsWriter>(new RoutedRowsWriter(std::move(writer), path, header));
}

absl::Status RoutedRowsWriter::Append(const NpyArray& array, int64_t row, const RequestInfo& request, TokenPhase phase,
                                      const std::string& place, const NpyArray* scores) {
  const int64_t tokens = request.tokens(), layers = header_.layers(), top_k = header_.top_k();
  const int64_t cell = layers * top_k;
  rows_.resize(static_cast<size_t>(tokens * cell));
  array.Read(row * cell, absl::MakeSpan(rows_));
  // The rows are checked here, where their place in the array is known.
  for (size_t i = 0; i < rows_.size(); ++i) {
    if (rows_[i] >= -1 && rows_[i] < static_cast<int32_t>(header_.experts())) continue;
    const auto at = static_cast<int64_t>(i);
    return absl::InvalidArgumentError(absl::StrCat(
        array.path(), ": row ", row + at / cell, ", layer ", at % cell / top_k, ": expert ", rows_[i],
        rows_[i] < 0 ? " is neither an expert nor -1 (missing)" : absl::StrCat(" is not below ", header_.experts())));
  }

  TokenColumns columns;
  if (phase != PHASE_UNKNOWN) {
    phase_.assign(static_cast<size_t>(tokens), static_cast<uint8_t>(phase));
    columns.phase = phase_;
  }
  const int64_t experts = header_.experts();
  if (scores != nullptr) columns.scores = scores->Stored(row * layers * experts, tokens * layers * experts);
  absl::Status status;
  if (header_.granularity() == STEP) {
    ByLayer(absl::MakeConstSpan(rows_), tokens, layers, top_k, step_);
    if (scores != nullptr) {
      ByLayer(columns.scores, tokens, layers, experts * NumberBytes(header_.scores()), step_scores_);
      columns.scores = step_scores_;
    }
    status = writer_->AppendStep({}, step_, columns);
    ++appended_;
  } else {
    const int64_t first = phase == DECODE ? request.prompt_tokens() : 0;
    if (first + tokens - 1 > std::numeric_limits<uint32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat(place, ": position ", first + tokens - 1, " does not fit in 32 bits"));
    }
    position_.resize(static_cast<size_t>(tokens));
    std::iota(position_.begin(), position_.end(), static_cast<uint32_t>(first));
    columns.position = position_;
    status = writer_->AppendRequest(request, rows_, columns);
    ++appended_;
  }
  tokens_ += tokens;
  if (!absl::IsInvalidArgument(status)) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(place, ": ", absl::StripPrefix(status.message(), absl::StrCat(path_, ": "))));
}

absl::StatusOr<ImportReport> RoutedRowsWriter::Finish(const std::string& format) {
  RETURN_IF_ERROR(writer_->Finish());
  ImportReport report;
  report.format = format;
  report.header = header_;
  report.tokens = tokens_;
  report.missing_ids = writer_->missing_ids();
  (header_.granularity() == STEP ? report.steps : report.requests) = appended_;
  return report;
}

}  // namespace epsim
