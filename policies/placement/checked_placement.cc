#include "policies/placement/checked_placement.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// `values` [rows, layers, experts].
absl::Status CheckFinite(absl::Span<const double> values, int layers, int experts, const char* what) {
  for (size_t i = 0; i < values.size(); ++i) {
    if (std::isfinite(static_cast<float>(values[i])) && values[i] >= 0) continue;
    const size_t row_size = static_cast<size_t>(layers) * experts;
    return absl::InvalidArgumentError(
        absl::StrCat("placement: ", what, " of layer ", i % row_size / experts, ", expert ", i % experts,
                     i >= row_size ? absl::StrCat(", row ", i / row_size) : std::string(), ": ", values[i], " is ",
                     values[i] < 0              ? "negative"
                     : std::isfinite(values[i]) ? "more than a float32 can hold"
                                                : "not a finite number"));
  }
  return absl::OkStatus();
}

class CheckedPlacement : public PlacementPolicy {
 public:
  CheckedPlacement(std::unique_ptr<PlacementPolicy> policy, bool goes_by_load, const PlacementShape& shape)
      : policy_(std::move(policy)), goes_by_load_(goes_by_load), shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    const LoadWindow& window = request.window;
    EPSIM_CHECK(request.random != nullptr);
    EPSIM_CHECK(window.layers == shape_.layers && window.experts == shape_.experts);
    EPSIM_CHECK(window.tokens.size() == static_cast<size_t>(window.rows) * window.layers * window.experts);
    if (goes_by_load_ && window.rows == 0) {
      return absl::FailedPreconditionError("placement: the window is empty: no load has been seen to plan on");
    }
    RETURN_IF_ERROR(CheckFinite(window.tokens, shape_.layers, shape_.experts, "load"));
    if (window.rows > 1) RETURN_IF_ERROR(CheckFinite(window.Total(), shape_.layers, shape_.experts, "total load"));
    if (request.profile != nullptr) {
      EPSIM_CHECK(request.profile->layers == shape_.layers && request.profile->experts == shape_.experts);
      RETURN_IF_ERROR(CheckFinite(request.profile->time_per_token, shape_.layers, shape_.experts, "time per token"));
    }
    return policy_->Place(request);
  }

  std::vector<Layer> change_order() const override { return policy_->change_order(); }

 private:
  const std::unique_ptr<PlacementPolicy> policy_;
  const bool goes_by_load_;
  const PlacementShape shape_;
};

}  // namespace

std::unique_ptr<PlacementPolicy> NewCheckedPlacement(std::unique_ptr<PlacementPolicy> policy, bool goes_by_load,
                                                     const PlacementShape& shape) {
  return std::make_unique<CheckedPlacement>(std::move(policy), goes_by_load, shape);
}

}  // namespace epsim
