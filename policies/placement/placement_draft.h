// A placement while a policy fills it, layer by layer.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// The slots that a policy is filling: those of the layers asked for are open, others as in request.previous.
class PlacementDraft {
 public:
  PlacementDraft(const PlacementShape& shape, const PlacementRequest& request);

  // The layers to fill, ascending.
  absl::Span<const Layer> layers() const { return layers_; }
  // The expert of each slot, and the slot's rank among the replicas of its expert (0: the original).  [slots]
  absl::Span<LogicalExpert> experts_of_slots(Layer layer);
  absl::Span<int32_t> replica_order(Layer layer);
  // Sets replica_order of `layer` to ascending slot order.
  void OrderBySlot(Layer layer);

  // The placement.  REQUIRES: every layer has been filled.
  Placement Finish() &&;

 private:
  PlacementShape shape_;
  std::vector<Layer> layers_;
  std::vector<LogicalExpert> experts_of_slots_;  // [layers, slots]
  std::vector<int32_t> replica_order_;           // [layers, slots]
};

}  // namespace epsim
