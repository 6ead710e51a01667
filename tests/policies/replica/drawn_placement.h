// Placements with replicas drawn at random.
#pragma once

#include <vector>

#include "engine/random_stream.h"
#include "policies/placement/placement.h"

namespace epsim {

// Every expert has a slot; what holds the other slots is drawn, and so is the order of all.
inline Placement DrawPlacement(const PlacementShape& shape, RandomStream* random) {
  std::vector<LogicalExpert> experts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    const size_t first = experts.size();
    for (int slot = 0; slot < shape.slots; ++slot) {
      const bool original = slot < shape.experts;
      experts.push_back(LogicalExpert(original ? slot : static_cast<int32_t>(random->Below(shape.experts))));
    }
    for (size_t i = 0; i < static_cast<size_t>(shape.slots); ++i) {
      std::swap(experts[first + i], experts[first + i + random->Below(shape.slots - i)]);
    }
  }
  return Placement(shape, experts);
}

}  // namespace epsim
