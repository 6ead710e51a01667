// A placement made out of the one in force by changing some of its layers, as incremental policies do.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

class PlacementChange {
 public:
  // Starts from request.previous; where that is null, from the contiguous placement, as a server does.
  // REQUIRES: request.previous, if any, has `shape`.
  PlacementChange(const PlacementShape& shape, const PlacementRequest& request);

  const Placement& start() const { return start_; }
  // The layers asked for, ascending.
  absl::Span<const Layer> layers() const { return layers_; }
  // Whether slots of `layer` hold no expert (their rank had failed): then it has to change.
  bool HasEmptySlots(Layer layer) const;

  // Gives `layer` new experts, [slots].  A lower `priority` comes first in the order.
  // REQUIRES: a layer asked for, not changed before.
  void Change(Layer layer, std::vector<LogicalExpert> experts_of_slots, double priority);

  struct Result {
    Placement placement;       // Layers that were not changed are as in start().
    std::vector<Layer> order;  // Those that were, by ascending `priority`, then layer.
  };
  Result Finish() &&;

 private:
  struct ChangedLayer {
    Layer layer;
    std::vector<LogicalExpert> experts_of_slots;
    double priority;
  };

  Placement start_;
  std::vector<Layer> layers_;
  std::vector<ChangedLayer> changed_;
};

}  // namespace epsim
