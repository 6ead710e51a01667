// Windows of loads on shapes of all kinds, drawn for tests that compare two implementations of a policy.
#pragma once

#include <cstdint>
#include <ostream>
#include <vector>

#include "engine/random_stream.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

struct DrawnWindow {
  PlacementShape shape;
  int rows = 0;
  std::vector<double> tokens;  // [rows, layers, experts], each a float32.

  LoadWindow window() const {
    return {.rows = rows, .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
  }
  friend std::ostream& operator<<(std::ostream& out, const DrawnWindow& drawn) {
    return out << drawn.rows << " rows, " << drawn.shape.experts << " experts, " << drawn.shape.slots << " slots, "
               << drawn.shape.ranks << " ranks, " << drawn.shape.nodes << " nodes, " << drawn.shape.expert_groups
               << " groups";
  }
};

// Nodes divide the ranks and half the time the groups, which divide the experts.  Loads are by turns small counts full
// of ties, mostly zeros, large counts, fractions, and quotients that tie; now and then there are none at all.
inline DrawnWindow DrawWindow(RandomStream* random) {
  DrawnWindow drawn;
  PlacementShape& shape = drawn.shape;
  const auto below = [random](uint64_t bound) { return static_cast<int>(random->Below(bound)); };
  shape.layers = 1 + below(3);
  shape.nodes = 1 + below(4);
  shape.ranks = shape.nodes * (1 + below(5));
  shape.expert_groups = (below(2) == 0 ? 1 : shape.nodes) * (1 + below(3));
  shape.experts = shape.expert_groups * (1 + below(24));
  shape.slots = shape.ranks * ((shape.experts + shape.ranks - 1) / shape.ranks + below(3));
  drawn.rows = 1 + below(6);
  const int kind = below(5);
  const bool idle = below(32) == 0;
  for (int i = 0; i < drawn.rows * shape.layers * shape.experts; ++i) {
    float load = 0;
    switch (kind) {
      case 0:
        load = static_cast<float>(below(4));
        break;
      case 1:
        load = below(8) == 0 ? static_cast<float>(below(100)) : 0;
        break;
      case 2:
        load = static_cast<float>(below(100000));
        break;
      case 3:
        load = static_cast<float>(random->Unit());
        break;
      default:
        load = 1e6f / static_cast<float>(1 + below(1000));
        break;
    }
    drawn.tokens.push_back(idle ? 0 : load);
  }
  return drawn;
}

}  // namespace epsim
