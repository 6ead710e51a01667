#include "experiments/report_folder.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {

namespace fs = std::filesystem;

ReportFolder::ReportFolder(std::string path) : path_(std::move(path)) {}

ReportFolder::~ReportFolder() {
  if (complete_) return;
  files_.clear();  // Removes the temporary files before their folder.
  for (auto folder = made_.rbegin(); folder != made_.rend(); ++folder) {
    std::error_code error;
    if (!fs::remove(*folder, error)) return;  // Not empty any more.
  }
}

absl::Status ReportFolder::Open() {
  fs::path folder;
  std::error_code error;
  for (const fs::path& part : path_) {
    folder /= part;
    if (fs::create_directory(folder, error)) made_.push_back(folder);
    if (error) break;
  }
  if (!error && !fs::is_directory(path_, error) && !error) error = std::make_error_code(std::errc::not_a_directory);
  if (!error) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat(path_.string(), ": cannot make the folder: ", error.message()));
}

absl::StatusOr<WholeFile*> ReportFolder::Create(const char* name) {
  const std::string path = (path_ / name).string();
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) {
    return absl::UnavailableError(
        absl::StrCat(path, ": cannot write the report: a folder lies in the place of a file"));
  }
  ASSIGN_OR_RETURN(auto file, WholeFile::Create(path));
  files_.push_back(std::move(file));
  return files_.back().get();
}

absl::Status ReportFolder::Commit() {
  RETURN_IF_ERROR(WholeFile::CommitAll(files_));
  complete_ = true;
  return absl::OkStatus();
}

}  // namespace epsim
