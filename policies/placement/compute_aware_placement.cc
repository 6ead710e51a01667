#include "policies/placement/compute_aware_placement.h"

#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

constexpr double kAlpha = 0.5;

class ComputeAwarePlacementPolicy : public PlacementPolicy {
 public:
  ComputeAwarePlacementPolicy(double alpha, const PlacementShape& shape, EplbPlacement::Mode mode)
      : alpha_(alpha), shape_(shape), mode_(mode) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    std::vector<double> weight = request.window.Total();
    const size_t experts = shape_.experts;
    if (request.profile != nullptr) {
      for (size_t begin = 0; begin < weight.size(); begin += experts) {
        WeighByTime(request.profile->time_per_token.subspan(begin, experts),
                    absl::MakeSpan(weight).subspan(begin, experts));
      }
    }
    std::vector<float> rounded(weight.begin(), weight.end());
    for (size_t i = 0; i < rounded.size(); ++i) {
      if (std::isfinite(rounded[i])) continue;
      return absl::InvalidArgumentError(absl::StrCat("placement: the window's load of layer ", i / experts, ", expert ",
                                                     i % experts, ": ", weight[i], " is more than a float32 can hold"));
    }
    PlacementDraft draft(shape_, request);
    FillByEplb(rounded, shape_, mode_, &draft);
    return std::move(draft).Finish();
  }

 private:
  // Tokens of a layer's experts to weights.  Both [experts].
  void WeighByTime(absl::Span<const double> time_per_token, absl::Span<double> weight) const {
    double tokens = 0, time = 0;
    for (size_t expert = 0; expert < weight.size(); ++expert) {
      tokens += weight[expert];
      time += weight[expert] * time_per_token[expert];
    }
    if (time == 0) return;
    for (size_t expert = 0; expert < weight.size(); ++expert) {
      const double t = weight[expert], c = t * time_per_token[expert];
      weight[expert] = (1 - alpha_) * t + alpha_ * tokens * (c / time);
    }
  }

  const double alpha_;
  const PlacementShape shape_;
  const EplbPlacement::Mode mode_;
};

absl::StatusOr<std::unique_ptr<PlacementPolicy>> New(const char* name, const ComputeAwarePlacement& config,
                                                     const PlacementShape& shape, EplbPlacement::Mode mode) {
  const double alpha = config.has_alpha() ? config.alpha() : kAlpha;
  if (!(alpha >= 0 && alpha <= 1)) {
    return absl::InvalidArgumentError(
        absl::StrCat(name, ": alpha: ", alpha, " is not in [0, 1]; 0 goes by tokens, 1 by compute time, 0.5 by both"));
  }
  if (const absl::Status status = CheckEplbShape(shape, mode); !status.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": as ", status.message(), " (compute_aware is GLOBAL)"));
  }
  return std::make_unique<ComputeAwarePlacementPolicy>(alpha, shape, mode);
}

}  // namespace

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewComputeAwarePlacement(const ComputeAwarePlacement& config,
                                                                          const PlacementShape& shape) {
  return New("compute_aware", config, shape, EplbPlacement::GLOBAL);
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewComputeAwareHierarchicalPlacement(
    const ComputeAwarePlacement& config, const PlacementShape& shape) {
  return New("compute_aware_hierarchical", config, shape, EplbPlacement::AUTO);
}

}  // namespace epsim
