#include "traces/import/npy.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

constexpr std::string_view kMagic("\x93NUMPY", 6);
// NumPy itself refuses headers above 10,000 bytes unless told otherwise.
constexpr uint32_t kMaxHeaderBytes = 65536;

absl::string_view View(std::string_view text) { return absl::string_view(text.data(), text.size()); }

// The header: a Python dictionary of three entries, as NumPy writes it, for example
//   {'descr': '<i2', 'fortran_order': False, 'shape': (12, 24, 4), }
// Consumes the text as it goes.
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  absl::Status Parse() {
    if (!Take("{")) return Unexpected("{");
    while (!Take("}")) {
      ASSIGN_OR_RETURN(const std::string_view key, Quoted());
      if (!Take(":")) return Unexpected(":");
      if (key == "descr" && !descr) {
        if (Next() != '\'' && Next() != '"')
          return absl::InvalidArgumentError("is an array of records, not of numbers");
        ASSIGN_OR_RETURN(descr, Quoted());
      } else if (key == "fortran_order" && !fortran_order) {
        if (Take("False")) {
          fortran_order = false;
        } else if (Take("True")) {
          fortran_order = true;
        } else {
          return Unexpected("True or False");
        }
      } else if (key == "shape" && !shape) {
        ASSIGN_OR_RETURN(shape, Tuple());
      } else {
        return absl::InvalidArgumentError(absl::StrCat("unexpected key '", absl::CHexEscape(View(key)),
                                                       "' in the "
                                                       "header"));
      }
      if (!Take(",") && Next() != '}') return Unexpected(", or }");
    }
    if (Next() != '\0') return Unexpected("the end");
    if (!descr || !fortran_order || !shape) {
      return absl::InvalidArgumentError(absl::StrCat("the header has no ", !descr           ? "descr"
                                                                           : !fortran_order ? "fortran_order"
                                                                                            : "shape"));
    }
    return absl::OkStatus();
  }

  std::optional<std::string_view> descr;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;

 private:
  // The next character that is not a space; 0 at the end.
  char Next() {
    const size_t from = text_.find_first_not_of(" \n");
    text_.remove_prefix(std::min(from, text_.size()));
    return text_.empty() ? '\0' : text_.front();
  }
  bool Take(std::string_view token) {
    Next();
    if (text_.substr(0, token.size()) != token) return false;
    text_.remove_prefix(token.size());
    return true;
  }
  absl::Status Unexpected(std::string_view expected) const {
    return absl::InvalidArgumentError(absl::StrCat("the header has \"", absl::CHexEscape(View(text_.substr(0, 20))),
                                                   "\" where ", View(expected), " is expected"));
  }
  absl::StatusOr<std::string_view> Quoted() {
    const char quote = Next();
    if (quote != '\'' && quote != '"') return Unexpected("a quoted word");
    const size_t end = text_.find(quote, 1);
    if (end == std::string_view::npos) return Unexpected("a quoted word");
    const std::string_view word = text_.substr(1, end - 1);
    text_.remove_prefix(end + 1);
    return word;
  }
  absl::StatusOr<std::vector<int64_t>> Tuple() {
    std::vector<int64_t> values;
    if (!Take("(")) return Unexpected("(");
    while (!Take(")")) {
      int64_t value = 0;
      if (Next() < '0' || Next() > '9') return Unexpected("a number");
      while (!text_.empty() && text_.front() >= '0' && text_.front() <= '9') {
        if (value > std::numeric_limits<int64_t>::max() / 10 - 1) return Unexpected("a number within 64 bits");
        value = value * 10 + (text_.front() - '0');
        text_.remove_prefix(1);
      }
      values.push_back(value);
      if (!Take(",") && Next() != ')') return Unexpected(", or )");
    }
    return values;
  }

  std::string_view text_;
};

struct Format {
  std::string_view descr;
  NpyArray::Type type;
  int64_t bytes;
};
constexpr Format kFormats[] = {{"|u1", NpyArray::Type::kUint8, 1},  {"<u2", NpyArray::Type::kUint16, 2},
                               {"<i2", NpyArray::Type::kInt16, 2},  {"<i4", NpyArray::Type::kInt32, 4},
                               {"<i8", NpyArray::Type::kInt64, 8},  {"<f2", NpyArray::Type::kFloat16, 2},
                               {"<f4", NpyArray::Type::kFloat32, 4}};
bool IsFloat(NpyArray::Type type) { return type == NpyArray::Type::kFloat16 || type == NpyArray::Type::kFloat32; }

template <typename Number>
void Convert(const char* from, absl::Span<int32_t> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    Number value;
    std::memcpy(&value, from + i * sizeof value, sizeof value);
    out[i] = static_cast<int32_t>(
        std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
  }
}

}  // namespace

absl::StatusOr<NpyArray> NpyArray::Open(const std::string& path) { return Open(path, Kind::kIntegers); }
absl::StatusOr<NpyArray> NpyArray::OpenFloats(const std::string& path) { return Open(path, Kind::kFloats); }

absl::StatusOr<NpyArray> NpyArray::Open(const std::string& path, Kind kind) {
  const auto invalid = [&](std::string_view what) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", View(what)));
  };
  NpyArray array;
  array.path_ = path;
  ASSIGN_OR_RETURN(array.file_, MappedFile::Open(path));
  const std::string_view file = array.file_->bytes();
  if (file.size() < 10 || file.substr(0, kMagic.size()) != kMagic) return invalid("is not a .npy file");
  const int major = static_cast<uint8_t>(file[6]);
  if (major < 1 || major > 3 || file[7] != 0) {
    return invalid(absl::StrCat("is of .npy format ", major, ".", static_cast<int>(file[7]), ", not 1.0, 2.0 or 3.0"));
  }
  size_t start = 10;
  uint32_t header_bytes = 0;
  if (major == 1) {
    uint16_t length;
    std::memcpy(&length, file.data() + 8, sizeof length);
    header_bytes = length;
  } else {
    start = 12;
    if (file.size() < start) return invalid("ends inside its header");
    std::memcpy(&header_bytes, file.data() + 8, sizeof header_bytes);
  }
  if (header_bytes > kMaxHeaderBytes) return invalid(absl::StrCat("has a header of ", header_bytes, " bytes"));
  if (file.size() - start < header_bytes) return invalid("ends inside its header");
  HeaderParser header(file.substr(start, header_bytes));
  if (const absl::Status status = header.Parse(); !status.ok()) {
    return invalid(std::string_view(status.message().data(), status.message().size()));
  }
  const Format* format = std::find_if(std::begin(kFormats), std::end(kFormats), [&](const Format& f) {
    return f.descr == *header.descr && IsFloat(f.type) == (kind == Kind::kFloats);
  });
  if (format == std::end(kFormats)) {
    return invalid(absl::StrCat("holds numbers of type '", absl::CHexEscape(View(*header.descr)), "', not ",
                                kind == Kind::kFloats ? "<f2 or <f4" : "|u1, <u2, <i2, <i4 or <i8"));
  }
  if (*header.fortran_order) return invalid("is in Fortran order, not in C order");
  array.type_ = format->type;
  array.bytes_ = format->bytes;
  array.shape_ = *std::move(header.shape);
  array.data_ = file.data() + start + header_bytes;
  const auto data_bytes = static_cast<int64_t>(file.size() - start - header_bytes);
  // Division instead of multiplication: nothing overflows, whatever the shape.
  int64_t left = data_bytes / format->bytes;
  bool fits = data_bytes % format->bytes == 0;
  if (std::find(array.shape_.begin(), array.shape_.end(), 0) != array.shape_.end()) {
    fits = data_bytes == 0;
  } else {
    for (const int64_t extent : array.shape_) {
      fits = fits && left % extent == 0;
      left /= extent;
    }
    fits = fits && left == 1;
  }
  if (!fits) {
    return invalid(absl::StrCat("has ", data_bytes, " bytes of data, which is not ", array.ShapeText(), " of type ",
                                View(format->descr)));
  }
  return array;
}

std::string NpyArray::ShapeText() const { return absl::StrCat("[", absl::StrJoin(shape_, ", "), "]"); }

void NpyArray::Read(int64_t first, absl::Span<int32_t> out) const {
  switch (type_) {
    case Type::kUint8:
      return Convert<uint8_t>(data_ + first, out);
    case Type::kUint16:
      return Convert<uint16_t>(data_ + first * 2, out);
    case Type::kInt16:
      return Convert<int16_t>(data_ + first * 2, out);
    case Type::kInt32:
      return Convert<int32_t>(data_ + first * 4, out);
    case Type::kInt64:
      return Convert<int64_t>(data_ + first * 8, out);
    case Type::kFloat16:
    case Type::kFloat32:
      break;
  }
  EPSIM_CHECK(!"an array of integers");
}

absl::Span<const std::byte> NpyArray::Stored(int64_t first, int64_t count) const {
  return {reinterpret_cast<const std::byte*>(data_ + first * bytes_), static_cast<size_t>(count * bytes_)};
}

}  // namespace epsim
