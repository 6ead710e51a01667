// A file seen as memory.  Its pages are the page cache's, not the process's own.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"

namespace epsim {

class MappedFile {
 public:
  // Read-only.  An error names the path.  An empty file is mapped as no bytes.
  static absl::StatusOr<std::unique_ptr<MappedFile>> Open(const std::string& path);
  // A new file of `bytes` zeros in `folder`, without a name: it goes away with this object.  The space is reserved, so
  // that writing cannot fail later.
  static absl::StatusOr<std::unique_ptr<MappedFile>> CreateUnnamed(const std::string& folder, size_t bytes);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::string_view bytes() const { return std::string_view(data_, size_); }
  // REQUIRES: made by CreateUnnamed.
  char* writable() { return data_; }

 private:
  MappedFile(char* data, size_t size) : data_(data), size_(size) {}
  char* data_;
  size_t size_;
};

}  // namespace epsim
