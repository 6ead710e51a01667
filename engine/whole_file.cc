#include "engine/whole_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

absl::Status FileError(const std::string& path, const char* what) {
  return absl::UnavailableError(absl::StrCat(path, ": ", what, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WholeFile>> WholeFile::Create(std::string path) {
  // A killed process may have left its temporary file behind, and a later one may have been given its number.
  constexpr int kAttempts = 1000;
  std::string temporary;
  std::FILE* file = nullptr;
  for (int attempt = 0; file == nullptr && attempt < kAttempts; ++attempt) {
    temporary = absl::StrCat(path, ".tmp", getpid(), "-", attempt);
    file = std::fopen(temporary.c_str(), "wbx");
    if (file == nullptr && errno != EEXIST) break;
  }
  if (file == nullptr) return FileError(path, "cannot create");
  return std::unique_ptr<WholeFile>(new WholeFile(std::move(path), std::move(temporary), file));
}

WholeFile::WholeFile(std::string path, std::string temporary, std::FILE* file)
    : path_(std::move(path)), temporary_(std::move(temporary)), file_(file) {}

WholeFile::~WholeFile() {
  if (file_ != nullptr) std::fclose(file_);
  if (!temporary_.empty()) unlink(temporary_.c_str());
}

void WholeFile::Write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() && status_.ok()) {
    status_ = FileError(path_, "cannot write");
  }
}

absl::Status WholeFile::Close() {
  EPSIM_CHECK(file_ != nullptr);
  if (std::fflush(file_) != 0 && status_.ok()) status_ = FileError(path_, "cannot write");
  if (status_.ok() && fsync(fileno(file_)) != 0) status_ = FileError(path_, "cannot write");
  if (std::fclose(std::exchange(file_, nullptr)) != 0 && status_.ok()) status_ = FileError(path_, "cannot write");
  return status_;
}

absl::Status WholeFile::Commit() {
  absl::Status status = Close();
  if (status.ok() && rename(temporary_.c_str(), path_.c_str()) != 0) status = FileError(path_, "cannot rename into");
  if (!status.ok()) unlink(temporary_.c_str());
  temporary_.clear();
  return status;
}

absl::Status WholeFile::CommitAll(absl::Span<const std::unique_ptr<WholeFile>> files) {
  for (const auto& file : files) RETURN_IF_ERROR(file->Close());
  // What is in the way is moved aside, so that it can be put back.
  struct Replaced {
    WholeFile* file;
    std::string old;  // Empty where there was nothing.
  };
  std::vector<Replaced> replaced;
  absl::Status status;
  for (const auto& file : files) {
    const char* const path = file->path_.c_str();
    struct stat there;
    std::string old;
    if (lstat(path, &there) == 0) {
      if (S_ISDIR(there.st_mode)) {
        errno = EISDIR;
        status = FileError(file->path_, "cannot rename into");
        break;
      }
      old = file->temporary_ + ".old";
      if (rename(path, old.c_str()) != 0) {
        status = FileError(file->path_, "cannot replace");
        break;
      }
    }
    replaced.push_back({file.get(), std::move(old)});
    if (rename(file->temporary_.c_str(), path) != 0) {
      status = FileError(file->path_, "cannot rename into");
      break;
    }
  }
  for (const Replaced& r : replaced) {
    if (status.ok()) {
      r.file->temporary_.clear();
      if (!r.old.empty()) unlink(r.old.c_str());
    } else if (!r.old.empty()) {
      rename(r.old.c_str(), r.file->path_.c_str());
    } else {
      unlink(r.file->path_.c_str());
    }
  }
  return status;
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) return absl::NotFoundError(absl::StrCat(path, ": cannot open: ", std::strerror(errno)));
  std::string text;
  char buffer[1 << 16];
  size_t read;
  while ((read = std::fread(buffer, 1, sizeof buffer, file)) > 0) text.append(buffer, read);
  const bool failed = std::ferror(file) != 0;  // A folder opens, but cannot be read.
  const int error = errno;
  std::fclose(file);
  if (failed) return absl::NotFoundError(absl::StrCat(path, ": cannot read: ", std::strerror(error)));
  return text;
}

}  // namespace epsim
