#include "models/costs/slot_times.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"
#include "engine/check.h"

namespace epsim {

void AddSlotTimes(const CostModel& costs, absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale,
                  absl::Span<double> picoseconds_of_slot) {
  const size_t slots = tokens_per_slot.size();
  EPSIM_CHECK(picoseconds_of_slot.size() == slots);
  const Duration floor = costs.RoutedExperts({}).time;
  const auto beyond_floor = [&](absl::Span<const int32_t> tokens, absl::Span<const double> their_scale) {
    const Duration time = costs.RoutedExperts(tokens, their_scale).time;
    return std::max(0.0, static_cast<double>((time - floor).count()));
  };

  absl::InlinedVector<double, 64> share(slots);
  double sum = 0;
  for (size_t slot = 0; slot < slots; ++slot) {
    if (tokens_per_slot[slot] == 0) continue;
    const auto alone = scale.empty() ? scale : scale.subspan(slot, 1);
    sum += share[slot] = beyond_floor(tokens_per_slot.subspan(slot, 1), alone);
  }
  if (sum == 0) {
    for (size_t slot = 0; slot < slots; ++slot) sum += share[slot] = tokens_per_slot[slot];
  }
  if (sum == 0) return;
  const double all = beyond_floor(tokens_per_slot, scale);
  for (size_t slot = 0; slot < slots; ++slot) picoseconds_of_slot[slot] += all * share[slot] / sum;
}

}  // namespace epsim
