#include "traces/import/import_numpy_folder.h"

#include <algorithm>
#include <filesystem>
#include <limits>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <unordered_set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "traces/format/mapped_file.h"
#include "traces/import/capture_facts.h"
#include "traces/import/npy.h"
#include "traces/import/routed_rows.h"

namespace epsim {
namespace {

constexpr int64_t kMaxRows = int64_t{1} << 56;

// One line of requests.jsonl.
struct RowRun {
  RequestInfo request;
  TokenPhase phase = PHASE_UNKNOWN;
  std::optional<int64_t> step;
};

absl::StatusOr<RowRun> ParseLine(const FactObject& line, TokenPhase phase) {
  RowRun run;
  ASSIGN_OR_RETURN(const int64_t id, line.RequiredInteger("request", std::numeric_limits<int64_t>::max()));
  run.request.set_id(static_cast<uint64_t>(id));
  ASSIGN_OR_RETURN(const int64_t first_token, line.RequiredInteger("first_token", kMaxRows));
  run.request.set_first_token(first_token);
  ASSIGN_OR_RETURN(const int64_t tokens, line.RequiredInteger("tokens", kMaxRows));
  if (tokens == 0) return line.Error("tokens is 0");
  run.request.set_tokens(tokens);
  ASSIGN_OR_RETURN(const std::optional<int64_t> prompt_tokens, line.Integer("prompt_tokens", kMaxRows));
  run.request.set_prompt_tokens(prompt_tokens.value_or(0));
  for (const char* key : {"domain", "dataset", "category"}) {
    ASSIGN_OR_RETURN(const std::optional<std::string> text, line.Text(key));
    if (text && run.request.domain().empty()) run.request.set_domain(*text);
  }
  ASSIGN_OR_RETURN(run.phase, line.Phase("phase", phase));
  ASSIGN_OR_RETURN(run.step, line.Integer("step", kMaxRows));
  return run;
}

class NumpyFolderImport {
 public:
  NumpyFolderImport(const std::string& folder, NpyArray array, std::optional<NpyArray> scores, CaptureMeta meta)
      : lines_path_(absl::StrCat(folder, "/requests.jsonl")),
        array_(std::move(array)),
        scores_(std::move(scores)),
        meta_(std::move(meta)) {}

  absl::StatusOr<TraceHeader> MakeHeader(const std::string& meta_path) const {
    const auto differs = [&](const char* what, int64_t said, int64_t is) {
      return absl::InvalidArgumentError(
          absl::StrCat(array_.path(), ": has ", is, " ", what, ", but ", meta_path, " says ", said));
    };
    if (!meta_.layers || !meta_.experts || !meta_.top_k) {
      return absl::InvalidArgumentError(absl::StrCat(meta_path, ": has no \"",
                                                     !meta_.layers    ? "layers"
                                                     : !meta_.experts ? "experts"
                                                                      : "top_k",
                                                     "\""));
    }
    ASSIGN_OR_RETURN(TraceHeader header, HeaderForRows(array_, *meta_.experts));
    if (*meta_.layers != header.layers()) return differs("layers", *meta_.layers, header.layers());
    if (*meta_.top_k != header.top_k()) return differs("ids a token (top_k)", *meta_.top_k, header.top_k());
    const int64_t rows = array_.shape()[0];
    if (meta_.tokens && *meta_.tokens != rows) return differs("tokens", *meta_.tokens, rows);
    if (meta_.granularity != "request" && meta_.granularity != "step") {
      return absl::InvalidArgumentError(
          absl::StrCat(meta_path, ": granularity is \"", meta_.granularity, "\", not \"request\" or \"step\""));
    }
    header.set_granularity(meta_.granularity == "step" ? STEP : REQUEST);
    header.set_model(meta_.model);
    if (!scores_) return header;
    const int64_t expected[] = {rows, header.layers(), header.experts()};
    if (scores_->shape() != absl::MakeConstSpan(expected)) {
      return absl::InvalidArgumentError(absl::StrCat(scores_->path(), ": has shape ", scores_->ShapeText(), ", not [",
                                                     rows, ", ", header.layers(), ", ", header.experts(),
                                                     "]: tokens, layers, experts"));
    }
    header.set_scores(scores_->type() == NpyArray::Type::kFloat16 ? FLOAT16 : FLOAT32);
    return header;
  }

  absl::Status Copy(std::string_view lines, const std::string& meta_path, RoutedRowsWriter* writer,
                    const StopToken& stop) {
    Progress progress("import", array_.shape()[0]);
    int64_t line_number = 0, row = 0, runs = 0;
    while (!lines.empty()) {
      RETURN_IF_ERROR(stop.Check());
      const std::string_view line = lines.substr(0, lines.find('\n'));
      lines.remove_prefix(std::min(lines.size(), line.size() + 1));
      ++line_number;
      if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
      const std::string place = absl::StrCat(lines_path_, ":", line_number);
      ASSIGN_OR_RETURN(const FactObject facts, FactObject::Parse(line, place));
      ASSIGN_OR_RETURN(const RowRun run, ParseLine(facts, meta_.phase));
      RETURN_IF_ERROR(CheckPlace(facts, run, row));
      RETURN_IF_ERROR(writer->Append(array_, row, run.request, run.phase, place, scores_ ? &*scores_ : nullptr));
      row += run.request.tokens();
      ++runs;
      progress.Set(row);
    }
    if (row != array_.shape()[0]) {
      return absl::InvalidArgumentError(absl::StrCat(lines_path_, ": its ", runs, " lines have ", row, " tokens, ",
                                                     array_.path(), " has ", array_.shape()[0]));
    }
    if (meta_.requests && *meta_.requests != runs) {
      return absl::InvalidArgumentError(
          absl::StrCat(meta_path, ": requests is ", *meta_.requests, ", but ", lines_path_, " has ", runs, " lines"));
    }
    return absl::OkStatus();
  }

 private:
  absl::Status CheckPlace(const FactObject& facts, const RowRun& run, int64_t row) {
    const int64_t first = run.request.first_token(), tokens = run.request.tokens(), rows = array_.shape()[0];
    if (first > rows || tokens > rows - first) {
      return facts.Error(
          absl::StrCat("rows ", first, " to ", first + tokens - 1, " are beyond the ", rows, " of ", array_.path()));
    }
    if (first != row) {
      return facts.Error(absl::StrCat("first_token is ", first, ", but the lines before end at row ", row,
                                      first < row ? " (rows overlap)" : " (rows are left out)"));
    }
    if (meta_.granularity == "step") {
      if (!run.step) return facts.Error("has no \"step\", and the granularity is \"step\"");
      if (last_step_ && *run.step <= *last_step_) {
        return facts.Error(absl::StrCat("step is ", *run.step, " after step ", *last_step_));
      }
      last_step_ = run.step;
    } else if (!ids_.insert(run.request.id()).second) {
      return facts.Error(absl::StrCat("request ", run.request.id(), " has a line already"));
    }
    return absl::OkStatus();
  }

  const std::string lines_path_;
  const NpyArray array_;
  const std::optional<NpyArray> scores_;
  const CaptureMeta meta_;
  std::optional<int64_t> last_step_;
  std::unordered_set<uint64_t> ids_;
};

}  // namespace

absl::StatusOr<ImportReport> ImportNumpyFolder(const std::string& folder, const ImportOptions& options,
                                               const std::string& out_path, const StopToken& stop) {
  const std::string meta_path = absl::StrCat(folder, "/meta.json");
  ASSIGN_OR_RETURN(CaptureMeta meta, ReadCaptureMeta(folder, options, true));
  ASSIGN_OR_RETURN(NpyArray array, NpyArray::Open(absl::StrCat(folder, "/routed_experts.npy")));
  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> lines, MappedFile::Open(absl::StrCat(folder, "/requests.jsonl")));
  std::optional<NpyArray> scores;
  const std::string scores_path = absl::StrCat(folder, "/scores.npy");
  if (std::error_code error; std::filesystem::exists(scores_path, error)) {
    ASSIGN_OR_RETURN(scores, NpyArray::OpenFloats(scores_path));
  }
  NumpyFolderImport import(folder, std::move(array), std::move(scores), std::move(meta));
  ASSIGN_OR_RETURN(TraceHeader header, import.MakeHeader(meta_path));
  header.set_source(absl::StrCat("imported from a NumPy folder, ", FolderName(folder)));
  ASSIGN_OR_RETURN(std::unique_ptr<RoutedRowsWriter> writer,
                   RoutedRowsWriter::Create(out_path, header, options.writer));
  RETURN_IF_ERROR(import.Copy(lines->bytes(), meta_path, writer.get(), stop));
  return writer->Finish("NumPy folder");
}

}  // namespace epsim
