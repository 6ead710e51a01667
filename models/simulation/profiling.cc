#include "models/simulation/profiling.h"

#include <vector>

#include "engine/check.h"
#include "models/costs/slot_times.h"

namespace epsim {

void ProfileLayer(const CostModel& costs, const ExpertCostScale* scale, const Placement& placement, Layer layer,
                  absl::Span<const int32_t> tokens_per_slot, ExpertProfiler* profiler) {
  const PlacementShape& shape = placement.shape();
  EPSIM_CHECK(tokens_per_slot.size() == static_cast<size_t>(shape.slots));
  const absl::Span<const LogicalExpert> experts = placement.experts_of_slots(layer);
  const size_t of_rank = shape.slots_per_rank();
  std::vector<double> scale_of_slot, picoseconds(shape.slots);
  if (scale != nullptr) {
    scale_of_slot.resize(shape.slots);
    scale->Gather(layer, experts, absl::MakeSpan(scale_of_slot));
  }
  for (size_t first = 0; first < tokens_per_slot.size(); first += of_rank) {
    AddSlotTimes(
        costs, tokens_per_slot.subspan(first, of_rank),
        scale == nullptr ? absl::Span<const double>() : absl::MakeConstSpan(scale_of_slot).subspan(first, of_rank),
        absl::MakeSpan(picoseconds).subspan(first, of_rank));
  }
  profiler->RecordSlots(layer, experts, tokens_per_slot, picoseconds);
}

}  // namespace epsim
