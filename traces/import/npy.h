// A NumPy array file (.npy, format 1.0 to 3.0, numpy/lib/format.py), read through a memory map.  Little-endian numbers
// in C order only: what routing captures are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "traces/format/mapped_file.h"

namespace epsim {

class NpyArray {
 public:
  enum class Type { kUint8, kUint16, kInt16, kInt32, kInt64, kFloat16, kFloat32 };

  // Fails, naming file and what, on any other file, and on one whose size is not what its header says.
  // Integers.
  static absl::StatusOr<NpyArray> Open(const std::string& path);
  // float16 or float32.
  static absl::StatusOr<NpyArray> OpenFloats(const std::string& path);

  const std::string& path() const { return path_; }
  Type type() const { return type_; }
  absl::Span<const int64_t> shape() const { return shape_; }
  // "[12, 24, 4]".
  std::string ShapeText() const;

  // Copies entries [first, first + out.size()), counted in C order.  A value that does not fit becomes the nearest one
  // that does.  REQUIRES: they exist and are integers.
  void Read(int64_t first, absl::Span<int32_t> out) const;

  // Entries [first, first + count) as they lie in the file.  REQUIRES: they exist.
  absl::Span<const std::byte> Stored(int64_t first, int64_t count) const;

 private:
  enum class Kind { kIntegers, kFloats };
  static absl::StatusOr<NpyArray> Open(const std::string& path, Kind kind);

  NpyArray() = default;
  std::string path_;
  std::unique_ptr<MappedFile> file_;
  Type type_ = Type::kUint8;
  int64_t bytes_ = 1;  // Of an entry.
  std::vector<int64_t> shape_;
  const char* data_ = nullptr;
};

}  // namespace epsim
