// What placement policies may ask of a cost model: how long a rank would take for its experts.
#pragma once

#include "absl/types/span.h"
#include "engine/units.h"
#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

class ModelCostView final : public CostView {
 public:
  // `costs` and `scale` (null: all 1) must outlive the view.
  explicit ModelCostView(const CostModel& costs, const ExpertCostScale* scale = nullptr)
      : costs_(costs), scale_(scale) {}

  // With the scales of `experts`; where all are 1 they are not looked at.
  Duration ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                      absl::Span<const int32_t> tokens_per_slot) const override;

 private:
  const CostModel& costs_;
  const ExpertCostScale* const scale_;
};

}  // namespace epsim
