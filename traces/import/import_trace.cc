#include "traces/import/import_trace.h"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/status_macros.h"
#include "traces/import/import_numpy_folder.h"
#include "traces/import/import_vllm_folder.h"

namespace epsim {
namespace {

namespace fs = std::filesystem;

bool HasArrays(const fs::path& folder) {
  std::error_code error;
  return std::any_of(fs::directory_iterator(folder, error), fs::directory_iterator(),
                     [](const fs::directory_entry& entry) { return entry.path().extension() == ".npy"; });
}

absl::StatusOr<ImportReport> Import(const std::string& source, const ImportOptions& options,
                                    const std::string& out_path, const StopToken& stop) {
  std::error_code error;
  if (!fs::exists(source, error)) return absl::NotFoundError(absl::StrCat(source, ": does not exist"));
  if (!fs::is_directory(source, error)) {
    return absl::InvalidArgumentError(absl::StrCat(source, ": is not a folder; a capture is imported from a folder"));
  }
  if (fs::exists(fs::path(source) / "routed_experts.npy", error)) {
    return ImportNumpyFolder(source, options, out_path, stop);
  }
  if (HasArrays(source)) return ImportVllmFolder(source, options, out_path, stop);
  return absl::InvalidArgumentError(
      absl::StrCat(source,
                   ": is no capture that is known: neither routed_experts.npy with requests.jsonl and meta.json, "
                   "nor vLLM routed_experts arrays (*.npy), one a request"));
}

}  // namespace

absl::StatusOr<ImportReport> ImportTrace(const std::string& source, const ImportOptions& options,
                                         const std::string& out_path, const StopToken& stop) {
  std::error_code error;
  if (fs::exists(out_path, error) && !fs::is_regular_file(out_path, error)) {
    return absl::InvalidArgumentError(absl::StrCat(out_path, ": is not a file that can be replaced"));
  }
  // Written beside its place and moved there when it is whole.
  const std::string temporary = absl::StrCat(out_path, ".tmp", getpid());
  absl::StatusOr<ImportReport> report = Import(source, options, temporary, stop);
  if (!report.ok()) {
    return absl::Status(report.status().code(),
                        absl::StrReplaceAll(report.status().message(), {{temporary, out_path}}));
  }
  fs::rename(temporary, out_path, error);
  if (error) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    return absl::UnavailableError(absl::StrCat(out_path, ": cannot rename into: ", error.message()));
  }
  return report;
}

}  // namespace epsim
