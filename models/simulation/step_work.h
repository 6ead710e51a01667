// What one step asks of the ranks: its batch cut into pieces, each MoE layer of each piece routed and costed.
#pragma once

#include <vector>

#include "models/costs/cost_model.h"
#include "models/costs/expert_cost_scale.h"
#include "models/routing/placed_routing.h"
#include "models/schedule/batch_split.h"
#include "platforms/cluster.h"
#include "policies/placement/placement.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// What a GPU of `speed` (1 as specified) takes: time / speed, rounded up.
Duration AtSpeed(Duration time, double speed);

struct StepWork {
  const StepBatch* batch = nullptr;
  BatchSplit split;
  bool padded = false;
  // Tokens of each rank, with padding, and those that it routes: the same or, where every rank has all tokens, all.
  // [pieces, ranks]
  std::vector<int32_t> own_rows, rows;
  std::vector<RoutedLayer> routed;   // [MoE layers, pieces]
  std::vector<Cost> expert_costs;    // [MoE layers, pieces, ranks]
  std::vector<Cost> quantize_costs;  // Likewise, of what has been received; empty where nothing is quantised then.
  // Of a routing policy's kernel, which the router's stage takes as well: parts as in `split.attention`; empty where no
  // layer is routed anew.  [MoE layers, parts, ranks]
  std::vector<Duration> routing_overhead;
  // Every rank takes the mean of what the ranks take for the batch (attention, routers...): of a bound,
  // balanced_work.h.
  bool level = false;

  int pieces() const { return split.shape.pieces(); }
  // `rows` of the pieces of a part: of the whole batch all, of a half its one.
  int64_t RowsOfPart(size_t part, size_t rank) const;
};

// How the pieces of a step are prepared.
struct StepPolicy {
  ExternalSchedule::Padding padding = ExternalSchedule::NEVER;
  bool gathers_rows = false;  // An empty rank needs padding.
  bool has_dispatch = true;   // Else every rank has all tokens.
  bool quantizes_received = false;
};

// Fills in what does not depend on the layer, and makes room for the rest.
void PrepareStep(const StepBatch& batch, BatchSplit split, const StepPolicy& policy, int moe_layers, StepWork* work);

// Fills in one MoE layer: where its tokens go, and what that costs.  `scale`: of the experts, null where all are 1.
// Thread-safe for different layers of one step.
void CountLayer(const PlacedRouting& routing, const PlacementShape& shape, int layer, StepWork* work);
void CostLayer(const PlacedRouting& routing, const CostModel& costs, const ExpertCostScale* scale,
               const Cluster& cluster, const PlacementShape& shape, int layer, StepWork* work);

// The counts of all pieces of a layer together, without padding.
void AddUpPieces(const StepWork& work, int layer, RoutedLayer* whole);

}  // namespace epsim
