// Experts of unequal cost: how many times as long each takes as the model's plain expert with the same tokens.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/ids.h"
#include "models/costs/costs.pb.h"
#include "policies/placement/placement.h"

namespace epsim {

class ExpertCostScale {
 public:
  // `scale` [layers, experts].
  ExpertCostScale(int experts, std::vector<double> scale);

  // [experts]
  absl::Span<const double> of(Layer layer) const;
  // Of the slots that hold `experts`; 1 where a slot holds none.  Both [slots].
  void Gather(Layer layer, absl::Span<const LogicalExpert> experts, absl::Span<double> scale) const;

 private:
  const size_t experts_;
  const std::vector<double> scale_;
};

// What can be said without the model: both fields set, values out of range.
absl::Status CheckExpertCostScale(const ExpertCostScaleConfig& config);

// The scales that `config` gives or draws; null where every expert takes as long as the plain one.  Drawn ones are
//   s[l, e] = x[l, e] / mean over e of x[l, e],   x = exp(spread * z),
//   z = sqrt(-2 * ln(1 - u)) * cos(2 * pi * v)   (Box and Muller 1958)
// with u and v uniform in [0, 1), in turn from the stream "expert_cost_scale" of `seed`, layer by layer and in it
// expert by expert.
// Fails as CheckExpertCostScale, and on a number of scales that is neither `experts` nor layers * experts.
absl::StatusOr<std::unique_ptr<const ExpertCostScale>> NewExpertCostScale(const ExpertCostScaleConfig& config,
                                                                          int layers, int experts, uint64_t seed);

}  // namespace epsim
