// A run's routing policy, step by step: it routes each batch anew, its kernel is charged to the router's stage, and
// what it is worth is measured beside the captured routing under the same placement.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/units.h"
#include "models/costs/cost_model.h"
#include "models/routing/batch_routing.h"
#include "models/routing/routing_kernel_cost.h"
#include "models/routing/token_routing.h"
#include "models/simulation/step_work.h"
#include "platforms/cluster.h"
#include "policies/placement/placement.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// One layer of one step.  Times are of one run of the layer; zero where it was not routed anew.
struct LayerRouting {
  RoutingDeparture departure;
  // Of the routed experts on the busiest rank, over the pieces of the batch: as captured, and as routed.
  Duration captured_expert_time{}, expert_time{};
  // Of the policy's kernel on the slowest rank: with its tokens, and without any.
  Duration overhead{}, empty_overhead{};
};

class StepRouting {
 public:
  StepRouting(std::unique_ptr<BatchRouting> routing, RoutingKernelCost kernel)
      : routing_(std::move(routing)), kernel_(std::move(kernel)) {}

  // As BatchRouting::Apply.  `captured` is not used after the step.
  absl::StatusOr<const StepBatch*> Route(const StepBatch& captured, BatchRouting::ForEach for_each);
  // Once PrepareStep() has made `work` of the routed batch: adds the kernel's time.
  void Charge(const Cluster& cluster, int layers, StepWork* work);
  // Fills in one MoE layer, once CountLayer() has.  Thread-safe for different layers.
  void Measure(const TokenRouting& routing, const CostModel& costs, const Cluster& cluster, const PlacementShape& shape,
               const StepWork& work, int layer);

  // Of the last step.  [MoE layers]
  absl::Span<const LayerRouting> layers() const { return layers_; }
  // The most that the kernel's matrix has taken on a rank.
  Bytes memory() const { return memory_; }
  const RoutingKernelCost& kernel() const { return kernel_; }

 private:
  const std::unique_ptr<BatchRouting> routing_;
  const RoutingKernelCost kernel_;
  const StepBatch* captured_ = nullptr;
  std::vector<LayerRouting> layers_;
  Bytes memory_;
};

}  // namespace epsim
