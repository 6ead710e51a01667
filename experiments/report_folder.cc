#include "experiments/report_folder.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {

namespace fs = std::filesystem;

ReportFolder::ReportFolder(std::string path) : path_(std::move(path)) {}

ReportFolder::~ReportFolder() {
  if (!made_ || complete_) return;
  files_.clear();  // Removes the temporary files before their folder.
  std::error_code error;
  fs::remove(path_, error);  // Only if empty.
}

absl::Status ReportFolder::Open() {
  std::error_code error;
  made_ = fs::create_directories(path_, error);
  if (error) return absl::UnavailableError(absl::StrCat(path_, ": cannot make the folder: ", error.message()));
  return absl::OkStatus();
}

absl::StatusOr<WholeFile*> ReportFolder::Create(const char* name) {
  ASSIGN_OR_RETURN(auto file, WholeFile::Create((fs::path(path_) / name).string()));
  files_.push_back(std::move(file));
  return files_.back().get();
}

absl::Status ReportFolder::Commit() {
  for (const auto& file : files_) RETURN_IF_ERROR(file->Commit());
  complete_ = true;
  return absl::OkStatus();
}

}  // namespace epsim
