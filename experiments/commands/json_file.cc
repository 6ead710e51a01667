#include "experiments/commands/json_file.h"

#include <algorithm>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/whole_file.h"

namespace epsim {
namespace {

using Json = nlohmann::json;

// Looks only for the first error of a JSON text.
struct FirstJsonError : Json::json_sax_t {
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(size_t) override { return true; }
  bool end_object() override { return true; }
  bool start_array(size_t) override { return true; }
  bool end_array() override { return true; }
  bool key(string_t&) override { return true; }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    bytes_read = position;
    // "[json.exception.parse_error.101] parse error at line 1, column 2: problem": the place is ours to say.
    const std::string_view what = error.what();
    const size_t column = what.find(", column ");
    const size_t problem = column == what.npos ? what.find("] ") : what.find(": ", column);
    message = problem == what.npos ? what : what.substr(problem + 2);
    return false;
  }

  size_t bytes_read = 0;  // With the offending one.
  std::string message;
};

}  // namespace

absl::StatusOr<Json> ReadJsonFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  Json json = Json::parse(text, /*cb=*/nullptr, /*allow_exceptions=*/false);
  if (!json.is_discarded()) return json;
  FirstJsonError error;
  Json::sax_parse(text, &error);
  const std::string_view before = std::string_view(text).substr(0, std::max<size_t>(error.bytes_read, 1) - 1);
  const auto line = 1 + std::count(before.begin(), before.end(), '\n');
  const size_t column = before.size() - (before.rfind('\n') + 1) + 1;  // npos + 1 is 0.
  return absl::InvalidArgumentError(absl::StrCat(path, ":", line, ":", column, ": ", error.message));
}

std::string JsonExcerpt(const Json& value) {
  std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
  if (text.size() > 40) text = text.substr(0, 37) + "...";
  return text;
}

}  // namespace epsim
