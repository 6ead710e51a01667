// The folder of a report and its files.  The report appears as a whole or not at all; an older one in the same place is
// replaced as a whole.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/whole_file.h"

namespace epsim {

// Unless Commit() succeeds, the destructor leaves what was there before: the folders that Open() made go away with the
// object, where nobody else has put anything in them.
class ReportFolder {
 public:
  explicit ReportFolder(std::string path);
  ~ReportFolder();
  ReportFolder(const ReportFolder&) = delete;
  ReportFolder& operator=(const ReportFolder&) = delete;

  // Makes the folder, and those above it, where there is none.
  absl::Status Open();
  // The file stays the folder's.  Fails if a folder lies in its place.
  absl::StatusOr<WholeFile*> Create(const char* name);
  // Brings all files into place or, where that fails, none.
  absl::Status Commit();

 private:
  const std::filesystem::path path_;
  std::vector<std::filesystem::path> made_;  // By Open(), the topmost first.
  bool complete_ = false;
  std::vector<std::unique_ptr<WholeFile>> files_;
};

}  // namespace epsim
