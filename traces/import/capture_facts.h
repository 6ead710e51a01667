// What is written beside a capture: JSON objects, read strictly.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"
#include "traces/import/import_trace.h"

namespace epsim {

// One JSON object and where it stands.  Every error begins with `place`: "FILE" or "FILE:LINE".
class FactObject {
 public:
  static absl::StatusOr<FactObject> Parse(std::string_view text, std::string place);

  // Null where the key is missing; an error where its value is of another kind (integers: not between 0 and `most`).
  absl::StatusOr<std::optional<int64_t>> Integer(const char* key, int64_t most) const;
  absl::StatusOr<std::optional<std::string>> Text(const char* key) const;
  // "prefill" or "decode"; `otherwise` where the key is missing.
  absl::StatusOr<TokenPhase> Phase(const char* key, TokenPhase otherwise) const;
  // As Integer, but the key must be there.
  absl::StatusOr<int64_t> RequiredInteger(const char* key, int64_t most) const;

  absl::Status Error(std::string_view what) const;

 private:
  FactObject(nlohmann::json object, std::string place) : object_(std::move(object)), place_(std::move(place)) {}
  nlohmann::json object_;
  std::string place_;
};

// meta.json of a folder, with what the options add.  Fails where both say something and differ.
struct CaptureMeta {
  std::string model;
  std::optional<int64_t> layers, experts, top_k, tokens, requests;
  std::string granularity;  // Empty if not said.
  TokenPhase phase = PHASE_UNKNOWN;
};
// `required`: fails without a meta.json.
absl::StatusOr<CaptureMeta> ReadCaptureMeta(const std::string& folder, const ImportOptions& options, bool required);

}  // namespace epsim
