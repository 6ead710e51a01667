#include "traces/import/import_vllm_folder.h"

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"
#include "traces/import/capture_facts.h"
#include "traces/import/npy.h"
#include "traces/import/routed_rows.h"

namespace epsim {
namespace {

// Paths of the .npy files in `folder`, in byte order of their names.
absl::StatusOr<std::vector<std::string>> ArraysIn(const std::string& folder) {
  std::vector<std::string> paths;
  std::error_code error;
  for (std::filesystem::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    if (entry->path().extension() == ".npy") paths.push_back(entry->path().string());
  }
  if (error) return absl::UnavailableError(absl::StrCat(folder, ": cannot list: ", error.message()));
  std::sort(paths.begin(), paths.end());
  return paths;
}

absl::StatusOr<NpyArray> OpenRouted(const std::string& path) {
  ASSIGN_OR_RETURN(NpyArray array, NpyArray::Open(path));
  if (array.type() != NpyArray::Type::kInt16) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": its numbers are not int16, as vLLM's routed_experts are"));
  }
  return array;
}

absl::Status CheckLike(const TraceHeader& header, const NpyArray& array, const std::string& first) {
  if (array.shape().size() == 3 && array.shape()[0] > 0 && array.shape()[1] == header.layers() &&
      array.shape()[2] == header.top_k()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(array.path(), ": has shape ", array.ShapeText(), ", not [tokens, ",
                                                 header.layers(), ", ", header.top_k(), "] as ", first));
}

}  // namespace

absl::StatusOr<ImportReport> ImportVllmFolder(const std::string& folder, const ImportOptions& options,
                                              const std::string& out_path, const StopToken& stop) {
  ASSIGN_OR_RETURN(const CaptureMeta meta, ReadCaptureMeta(folder, options, false));
  const std::string meta_path = absl::StrCat(folder, "/meta.json");
  ASSIGN_OR_RETURN(const std::vector<std::string> paths, ArraysIn(folder));
  if (paths.empty()) return absl::InvalidArgumentError(absl::StrCat(folder, ": has no .npy file"));
  if (!meta.experts) {
    return absl::InvalidArgumentError(
        absl::StrCat(folder,
                     ": how many experts a layer has is in no routed_experts array: say it (experts), or put a "
                     "meta.json with \"experts\" beside"));
  }
  if (!meta.granularity.empty() && meta.granularity != "request") {
    return absl::InvalidArgumentError(
        absl::StrCat(meta_path, ": granularity is \"", meta.granularity, "\", but these arrays are one a request"));
  }
  if (meta.requests && *meta.requests != static_cast<int64_t>(paths.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat(meta_path, ": requests is ", *meta.requests, ", but there are ", paths.size(), " .npy files"));
  }
  TraceHeader header;
  {
    ASSIGN_OR_RETURN(const NpyArray first, OpenRouted(paths[0]));
    ASSIGN_OR_RETURN(header, HeaderForRows(first, *meta.experts));
    if (meta.layers.value_or(header.layers()) != header.layers() ||
        meta.top_k.value_or(header.top_k()) != header.top_k()) {
      return absl::InvalidArgumentError(absl::StrCat(first.path(), ": has shape ", first.ShapeText(), ", but ",
                                                     meta_path, " says layers ", meta.layers.value_or(header.layers()),
                                                     ", top_k ", meta.top_k.value_or(header.top_k())));
    }
  }
  header.set_granularity(REQUEST);
  header.set_model(meta.model);
  header.set_source(absl::StrCat("imported from vLLM routed_experts arrays, ", FolderName(folder)));
  ASSIGN_OR_RETURN(std::unique_ptr<RoutedRowsWriter> writer,
                   RoutedRowsWriter::Create(out_path, header, options.writer));
  Progress progress("import", static_cast<int64_t>(paths.size()));
  int64_t tokens = 0;
  for (size_t i = 0; i < paths.size(); ++i) {
    RETURN_IF_ERROR(stop.Check());
    ASSIGN_OR_RETURN(const NpyArray array, OpenRouted(paths[i]));
    RETURN_IF_ERROR(CheckLike(header, array, paths[0]));
    RequestInfo request;
    request.set_id(i);
    request.set_tokens(array.shape()[0]);
    RETURN_IF_ERROR(writer->Append(array, 0, request, meta.phase, paths[i]));
    tokens += request.tokens();
    progress.Set(static_cast<int64_t>(i) + 1);
  }
  if (meta.tokens && *meta.tokens != tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat(meta_path, ": tokens is ", *meta.tokens, ", but the arrays have ", tokens));
  }
  return writer->Finish("vLLM routed_experts folder");
}

}  // namespace epsim
