#include "models/costs/cost_view.h"

#include "absl/container/inlined_vector.h"

namespace epsim {

Duration ModelCostView::ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                                   absl::Span<const int32_t> tokens_per_slot) const {
  if (scale_ == nullptr) return costs_.RoutedExperts(tokens_per_slot).time;
  absl::InlinedVector<double, 64> scale(experts.size());
  scale_->Gather(layer, experts, absl::MakeSpan(scale));
  return costs_.RoutedExperts(tokens_per_slot, scale).time;
}

}  // namespace epsim
