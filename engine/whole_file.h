// A file that appears under its name only when it is complete.  Until Commit() it is written beside its place under a
// temporary name, which the destructor removes: an error or an interruption leaves nothing behind.
#pragma once

#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace epsim {

class WholeFile {
 public:
  // Fails if the folder of `path` cannot be written.
  static absl::StatusOr<std::unique_ptr<WholeFile>> Create(std::string path);
  ~WholeFile();
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;

  // Buffered.  An error (a full disk) is kept and returned by Commit().
  void Write(std::string_view bytes);
  const std::string& path() const { return path_; }

  // Flushes to disk and renames into place.
  absl::Status Commit();
  // Commits all of `files` or, where that fails, none: what was there before is there again.
  static absl::Status CommitAll(absl::Span<const std::unique_ptr<WholeFile>> files);

 private:
  // Flushes to disk and closes the temporary file, which stays.  REQUIRES: not closed yet.
  absl::Status Close();

  WholeFile(std::string path, std::string temporary, std::FILE* file);
  std::string path_, temporary_;
  std::FILE* file_;  // Null once closed.
  absl::Status status_;
};

// All bytes of the file at `path`; the error names it.
absl::StatusOr<std::string> ReadFile(const std::string& path);

}  // namespace epsim
