#include "models/costs/cost_view.h"

namespace epsim {

Duration ModelCostView::ExpertTime(Layer, absl::Span<const LogicalExpert>,
                                   absl::Span<const int32_t> tokens_per_slot) const {
  return costs_.RoutedExperts(tokens_per_slot).time;
}

}  // namespace epsim
