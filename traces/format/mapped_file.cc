#include "traces/format/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace epsim {
namespace {

absl::Status SystemError(const std::string& path, const char* what, int error) {
  const std::string message = absl::StrCat(path, ": ", what, ": ", std::strerror(error));
  return error == ENOENT || error == ENOTDIR ? absl::NotFoundError(message) : absl::UnavailableError(message);
}

}  // namespace

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::Open(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return SystemError(path, "cannot open", errno);
  struct stat facts;
  if (fstat(file, &facts) != 0) {
    const int error = errno;
    close(file);
    return SystemError(path, "cannot open", error);
  }
  if (!S_ISREG(facts.st_mode)) {
    close(file);
    return absl::InvalidArgumentError(
        absl::StrCat(path, S_ISDIR(facts.st_mode) ? ": is a folder, not a file" : ": is not a regular file"));
  }
  const auto size = static_cast<size_t>(facts.st_size);
  void* data = nullptr;
  if (size > 0) data = mmap(nullptr, size, PROT_READ, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) return SystemError(path, "cannot map into memory", error);
  return std::unique_ptr<MappedFile>(new MappedFile(static_cast<char*>(data), size));
}

absl::StatusOr<std::unique_ptr<MappedFile>> MappedFile::CreateUnnamed(const std::string& folder, size_t bytes) {
  int file = open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (file < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {  // Not every file system has O_TMPFILE.
    std::string name = absl::StrCat(folder, "/epsim-scratch-XXXXXX");
    file = mkostemp(name.data(), O_CLOEXEC);
    if (file >= 0) unlink(name.c_str());
  }
  if (file < 0) return SystemError(folder, "cannot create a scratch file", errno);
  if (bytes > 0) {
    if (const int error = posix_fallocate(file, 0, static_cast<off_t>(bytes)); error != 0) {
      close(file);
      return absl::ResourceExhaustedError(
          absl::StrCat(folder, ": cannot reserve ", bytes, " bytes of scratch space: ", std::strerror(error)));
    }
  }
  void* data = nullptr;
  if (bytes > 0) data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  const int error = errno;
  close(file);
  if (data == MAP_FAILED) return SystemError(folder, "cannot map a scratch file into memory", error);
  return std::unique_ptr<MappedFile>(new MappedFile(static_cast<char*>(data), bytes));
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(data_, size_);
}

}  // namespace epsim
