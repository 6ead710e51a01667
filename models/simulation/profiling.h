// What a profiler sees of the experts of a step.
#pragma once

#include "absl/types/span.h"
#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "policies/placement/placement.h"
#include "policies/rebalance/expert_profiler.h"

namespace epsim {

// Records one layer: tokens of each slot [slots], which hold the experts of `placement`.  Each rank's time is shared
// out to its slots (models/costs/slot_times.h), as a GPU of the specified speed takes it.  `scale` null: all 1.
// REQUIRES: the profiler's step begun last is profiled.
void ProfileLayer(const CostModel& costs, const ExpertCostScale* scale, const Placement& placement, Layer layer,
                  absl::Span<const int32_t> tokens_per_slot, ExpertProfiler* profiler);

}  // namespace epsim
