#include "experiments/accuracy/case_file.h"

#include <cmath>
#include <fstream>
#include <map>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// What of the value an error shows.
std::string Shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

absl::Status Problem(const Case& measured, std::string_view name, const std::string& problem) {
  return absl::InvalidArgumentError(absl::StrCat(measured.place, ": ", View(name), ": ", problem));
}

absl::StatusOr<Case> CaseFrom(const std::string& line, std::string place) {
  Case result;
  result.place = std::move(place);
  result.fields = nlohmann::json::parse(line, nullptr, false);
  if (result.fields.is_discarded()) return absl::InvalidArgumentError(absl::StrCat(result.place, ": not JSON"));
  if (!result.fields.is_object()) return absl::InvalidArgumentError(absl::StrCat(result.place, ": not a JSON object"));
  for (auto [name, text] : {std::pair("id", &result.id), std::pair("kind", &result.kind),
                            std::pair("platform", &result.platform), std::pair("metric", &result.metric)}) {
    ASSIGN_OR_RETURN(*text, TextField(result, name));
  }
  if (HasField(result, "library")) {
    ASSIGN_OR_RETURN(result.library, TextField(result, "library"));
  } else if (result.kind == "nccl") {
    result.library = "nccl";
  }
  ASSIGN_OR_RETURN(const std::string weight, TextField(result, "weight"));
  if (weight != "tight" && weight != "loose") {
    return Problem(result, "weight", absl::StrCat("\"", weight, "\" is neither tight nor loose"));
  }
  result.tight = weight == "tight";
  if (!HasField(result, "measured")) return Problem(result, "measured", "missing");
  const nlohmann::json& measured = result.fields["measured"];
  if (!measured.is_number()) return Problem(result, "measured", absl::StrCat(Shown(measured), " is not a number"));
  result.measured = measured.get<double>();
  if (!(result.measured > 0 && std::isfinite(result.measured))) {
    return Problem(result, "measured", absl::StrCat(Shown(measured), " is not positive"));
  }
  return result;
}

}  // namespace

bool HasField(const Case& measured, std::string_view name) {
  const auto field = measured.fields.find(std::string(name));
  return field != measured.fields.end() && !field->is_null();
}

absl::StatusOr<int64_t> IntegerField(const Case& measured, std::string_view name, int64_t least, int64_t most) {
  if (!HasField(measured, name)) return Problem(measured, name, "missing");
  const nlohmann::json& value = measured.fields[std::string(name)];
  const auto range = absl::StrCat(" is not a whole number from ", least, " to ", most);
  if (!value.is_number_integer()) return Problem(measured, name, Shown(value) + range);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(most)) {
    return Problem(measured, name, Shown(value) + range);
  }
  const auto number = value.get<int64_t>();
  if (number < least || number > most) return Problem(measured, name, Shown(value) + range);
  return number;
}

absl::StatusOr<double> NumberField(const Case& measured, std::string_view name, double least, double most) {
  if (!HasField(measured, name)) return Problem(measured, name, "missing");
  const nlohmann::json& value = measured.fields[std::string(name)];
  if (!value.is_number() || !(value.get<double>() >= least && value.get<double>() <= most)) {
    return Problem(measured, name, absl::StrCat(Shown(value), " is not a number from ", least, " to ", most));
  }
  return value.get<double>();
}

absl::StatusOr<std::string> TextField(const Case& measured, std::string_view name) {
  if (!HasField(measured, name)) return Problem(measured, name, "missing");
  const nlohmann::json& value = measured.fields[std::string(name)];
  if (!value.is_string()) return Problem(measured, name, absl::StrCat(Shown(value), " is not a string"));
  return value.get<std::string>();
}

absl::StatusOr<std::vector<Case>> ReadCases(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(absl::StrCat(path, ": cannot be read"));
  std::vector<Case> cases;
  std::map<std::string, std::string> places;
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    ASSIGN_OR_RETURN(Case next, CaseFrom(line, absl::StrCat(path, ":", number)));
    const auto [place, fresh] = places.emplace(next.id, next.place);
    if (!fresh) return Problem(next, "id", absl::StrCat("\"", next.id, "\" is there already, at ", place->second));
    cases.push_back(std::move(next));
  }
  if (file.bad()) return absl::UnavailableError(absl::StrCat(path, ": reading fails"));
  if (cases.empty()) return absl::InvalidArgumentError(absl::StrCat(path, ": no cases"));
  return cases;
}

}  // namespace epsim
