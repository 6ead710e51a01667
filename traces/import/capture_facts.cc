#include "traces/import/capture_facts.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <memory>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/format/mapped_file.h"

namespace epsim {
namespace {

constexpr size_t kMaxTextBytes = size_t{1} << 24;  // Of one JSON text; more is not a description.

std::string OneLine(std::string text) {
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

}  // namespace

absl::StatusOr<FactObject> FactObject::Parse(std::string_view text, std::string place) {
  if (text.size() > kMaxTextBytes) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": ", text.size(), " bytes of JSON are too many"));
  }
  nlohmann::json object;
  try {
    object = nlohmann::json::parse(text.begin(), text.end());
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(place, ": is not JSON: ", OneLine(error.what())));
  }
  if (!object.is_object()) return absl::InvalidArgumentError(absl::StrCat(place, ": is not a JSON object"));
  return FactObject(std::move(object), std::move(place));
}

absl::StatusOr<std::optional<int64_t>> FactObject::Integer(const char* key, int64_t most) const {
  const auto found = object_.find(key);
  if (found == object_.end()) return std::optional<int64_t>();
  const bool integer = found->is_number_integer();
  if (integer && found->is_number_unsigned() && found->get<uint64_t>() <= static_cast<uint64_t>(most)) {
    return std::optional<int64_t>(found->get<int64_t>());
  }
  return Error(
      absl::StrCat(key, " is ", OneLine(found->dump(-1, ' ', true)), ", not a whole number between 0 and ", most));
}

absl::StatusOr<int64_t> FactObject::RequiredInteger(const char* key, int64_t most) const {
  ASSIGN_OR_RETURN(const std::optional<int64_t> value, Integer(key, most));
  if (!value) return Error(absl::StrCat("has no \"", key, "\""));
  return *value;
}

absl::StatusOr<std::optional<std::string>> FactObject::Text(const char* key) const {
  const auto found = object_.find(key);
  if (found == object_.end()) return std::optional<std::string>();
  if (!found->is_string()) {
    return Error(absl::StrCat(key, " is ", OneLine(found->dump(-1, ' ', true)), ", not a string"));
  }
  return std::optional<std::string>(found->get<std::string>());
}

absl::StatusOr<TokenPhase> FactObject::Phase(const char* key, TokenPhase otherwise) const {
  ASSIGN_OR_RETURN(const std::optional<std::string> text, Text(key));
  if (!text) return otherwise;
  if (*text == "prefill") return PREFILL;
  if (*text == "decode") return DECODE;
  return Error(absl::StrCat(key, " is ", nlohmann::json(*text).dump(-1, ' ', true), ", not \"prefill\" or \"decode\""));
}

absl::Status FactObject::Error(std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrCat(place_, ": ", absl::string_view(what.data(), what.size())));
}

absl::StatusOr<CaptureMeta> ReadCaptureMeta(const std::string& folder, const ImportOptions& options, bool required) {
  CaptureMeta meta;
  meta.model = options.model;
  meta.phase = options.phase;
  if (options.experts > 0) meta.experts = options.experts;
  const std::string path = absl::StrCat(folder, "/meta.json");
  std::error_code ignored;
  if (!required && !std::filesystem::exists(path, ignored)) return meta;

  ASSIGN_OR_RETURN(const std::unique_ptr<MappedFile> file, MappedFile::Open(path));
  ASSIGN_OR_RETURN(const FactObject facts, FactObject::Parse(file->bytes(), path));
  ASSIGN_OR_RETURN(const std::optional<std::string> model, facts.Text("model"));
  if (meta.model.empty()) meta.model = model.value_or("");
  ASSIGN_OR_RETURN(meta.layers, facts.Integer("layers", 65536));
  ASSIGN_OR_RETURN(const std::optional<int64_t> experts, facts.Integer("experts", 65536));
  if (experts && meta.experts && *experts != *meta.experts) {
    return facts.Error(absl::StrCat("experts is ", *experts, ", but ", *meta.experts, " was asked for"));
  }
  if (experts) meta.experts = experts;
  ASSIGN_OR_RETURN(meta.top_k, facts.Integer("top_k", 255));
  ASSIGN_OR_RETURN(meta.tokens, facts.Integer("tokens", int64_t{1} << 56));
  ASSIGN_OR_RETURN(meta.requests, facts.Integer("requests", int64_t{1} << 56));
  ASSIGN_OR_RETURN(const std::optional<std::string> granularity, facts.Text("granularity"));
  meta.granularity = granularity.value_or("");
  ASSIGN_OR_RETURN(meta.phase, facts.Phase("phase", options.phase));
  return meta;
}

}  // namespace epsim
