// JSON files as commands read them, with errors that name the place.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace epsim {

// The file's value.  An error of syntax names file, line and column.
absl::StatusOr<nlohmann::json> ReadJsonFile(const std::string& path);

// The value as JSON, cut where it is long.
std::string JsonExcerpt(const nlohmann::json& value);

}  // namespace epsim
