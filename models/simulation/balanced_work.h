// The least that a step could ask of the ranks: the bound that no placement, replica choice or routing of those
// compared can beat.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "models/simulation/step_work.h"
#include "platforms/cluster.h"
#include "policies/placement/placement.h"

namespace epsim {

// A step as one of the alternatives had it.
struct ComparedWork {
  const StepWork* work;
  const Placement* placement;
};

// Fills in one MoE layer of `work`, cut as those of `compared` are.  Every rank has the mean of the experts' work: the
// fewest active experts and pairs of any alternative, at no less than CostModel::LeastExperts.  Every pair of ranks of
// a node, and every pair of ranks of different nodes, has the mean of the copies between such: the fewest of any
// alternative, rounded down.  A byte less here and a pair less there may come from different alternatives, so that the
// bound may be out of reach for all.  Attention and what else goes by a rank's own tokens is levelled as well
// (StepWork::level): experts may be light on the very ranks whose attention takes long.
void BalanceLayer(absl::Span<const ComparedWork> compared, const CostModel& costs, const ExpertCostScale* scale,
                  const Cluster& cluster, const PlacementShape& shape, int layer, StepWork* work);

}  // namespace epsim
