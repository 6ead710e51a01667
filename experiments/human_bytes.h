// Bytes as people read them.
#pragma once

#include <string>

#include "absl/strings/str_format.h"

namespace epsim {

// In the unit that leaves one to three digits before the point.
inline std::string HumanBytes(double bytes) {
  static constexpr const char* kUnits[] = {"B", "kB", "MB", "GB", "TB", "PB"};
  int unit = 0;
  while (bytes >= 999.5 && unit < 5) bytes /= 1000, ++unit;
  return absl::StrFormat(unit == 0 ? "%.0f %s" : "%.3g %s", bytes, kUnits[unit]);
}

}  // namespace epsim
