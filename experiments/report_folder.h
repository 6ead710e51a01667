#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/whole_file.h"

namespace epsim {

// The folder of a report and its files, all of which appear when Commit() is called, or none.  A folder that Open()
// made goes away with the object unless the report is complete.
class ReportFolder {
 public:
  explicit ReportFolder(std::string path);
  ~ReportFolder();

  absl::Status Open();
  // The file stays the folder's.
  absl::StatusOr<WholeFile*> Create(const char* name);
  absl::Status Commit();

 private:
  const std::string path_;
  bool made_ = false, complete_ = false;
  std::vector<std::unique_ptr<WholeFile>> files_;
};

}  // namespace epsim
