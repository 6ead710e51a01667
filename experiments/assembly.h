// Makes the parts of a run from its experiment and wires them together.  All validation that needs no trace is here.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/event_queue.h"
#include "experiments/setup.h"
#include "models/calibration/work_times.h"
#include "models/communication/communication.h"
#include "models/costs/cost_model.h"
#include "models/costs/cost_view.h"
#include "models/costs/expert_cost_scale.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"
#include "policies/placement/placement_policy.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

struct Assembly {
  Cluster cluster;
  PlacementShape shape;
  std::unique_ptr<PlacementPolicy> placement_policy;
  std::unique_ptr<ReplicaChoice> replica_choice;
  std::unique_ptr<CostModel> costs;
  std::unique_ptr<const ExpertCostScale> expert_cost_scale;  // Null: all 1.
  std::unique_ptr<Communication> communication;
  Duration router_overhead{};                // Of choosing replicas, in each call of a router.
  BytesPerSecond copy_rate{1};               // Of a GPU's memory, as kernels reach it.
  std::unique_ptr<ModelCostView> cost_view;  // Uses costs.
  // What the reader of a report must know of how the parts go together.
  std::vector<std::string> notes;
  EventQueue queue;
  std::unique_ptr<Network> network;  // Uses cluster and queue.
};

// Behind a pointer, because the network holds on to its neighbours.  `times`: of kernels that the cost model executes;
// null: by the first GPU of this machine.
absl::StatusOr<std::unique_ptr<Assembly>> Assemble(const ResolvedExperiment& resolved,
                                                   std::shared_ptr<WorkTimes> times = nullptr);

}  // namespace epsim
