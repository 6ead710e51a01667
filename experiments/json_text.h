// Every JSON text that epsim writes.
#pragma once

#include <string>

#include "nlohmann/json.hpp"

namespace epsim {

// Two spaces a level, a new line at the end; bytes that are not UTF-8 (from names that a user gave) are replaced.
inline std::string JsonText(const nlohmann::ordered_json& json) {
  return json.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace epsim
