#include "engine/whole_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

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
  if (file_ == nullptr) return;
  std::fclose(file_);
  unlink(temporary_.c_str());
}

void WholeFile::Write(std::string_view bytes) {
  if (std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size() && status_.ok()) {
    status_ = FileError(path_, "cannot write");
  }
}

absl::Status WholeFile::Commit() {
  if (std::fflush(file_) != 0 && status_.ok()) status_ = FileError(path_, "cannot write");
  if (status_.ok() && fsync(fileno(file_)) != 0) status_ = FileError(path_, "cannot write");
  if (std::fclose(std::exchange(file_, nullptr)) != 0 && status_.ok()) status_ = FileError(path_, "cannot write");
  if (status_.ok() && rename(temporary_.c_str(), path_.c_str()) != 0) status_ = FileError(path_, "cannot rename into");
  if (!status_.ok()) unlink(temporary_.c_str());
  return status_;
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
