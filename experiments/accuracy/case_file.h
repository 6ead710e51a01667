// Measurements to be right against: a file of cases, one JSON object a line, each a setup that is stated in full, what
// was measured on it, and where that stands.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace epsim {

struct Case {
  std::string place;  // "FILE:LINE", for errors.
  std::string id, kind, platform;
  std::string library;  // "nccl" for kind nccl; empty where the kind has none.
  std::string metric;   // Unit-bearing name of `measured`.
  double measured = 0;
  bool tight = false;     // Weight: the setup is stated in full, and the measurement clean.
  nlohmann::json fields;  // The whole object.
};

// Fails on a line that is no object, on a field that every case has and this one lacks or has of another type, on a
// measurement that is not positive and on an id that is there twice; the error names file, line and value.
absl::StatusOr<std::vector<Case>> ReadCases(const std::string& path);

// A field of a case.  Errors name the place and the field.
absl::StatusOr<int64_t> IntegerField(const Case& measured, std::string_view name, int64_t least, int64_t most);
absl::StatusOr<double> NumberField(const Case& measured, std::string_view name, double least, double most);
absl::StatusOr<std::string> TextField(const Case& measured, std::string_view name);
// Whether the field is there, and not null.
bool HasField(const Case& measured, std::string_view name);

}  // namespace epsim
