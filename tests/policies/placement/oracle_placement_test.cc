// Is the oracle's placement never worse than EPLB on the steps that both were planned on?
#include "policies/placement/oracle_placement.h"

#include <algorithm>
#include <vector>

#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

Placement Oracle(const PlacementShape& shape, const LoadWindow& window) {
  RandomStream random(1, "placement");
  PlacementRequest request;
  request.window = window;
  request.random = &random;
  return NewOraclePlacement(shape).value()->Place(request).value();
}

// Two ranks of two slots; rows (4, 1, 0, 3) and (0, 1, 4, 3).  As given: max(5, 3) + max(1, 7) = 12.  Experts 0 and 2
// together, which peak in turn: max(4, 4) + max(4, 4) = 8, the mean: no placement has less.
TEST(Oracle, PutsExpertsThatPeakInTurnTogether) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 4, .ranks = 2};
  const std::vector<double> tokens = {4, 1, 0, 3, 0, 1, 4, 3};
  const LoadWindow window{.rows = 2, .layers = 1, .experts = 4, .tokens = tokens};
  const std::vector<LogicalExpert> in_order = {LogicalExpert(0), LogicalExpert(1), LogicalExpert(2), LogicalExpert(3)};
  EXPECT_EQ(SumOfBusiest(shape, window, Layer(0), in_order), 12);
  const Placement placement = Oracle(shape, window);
  EXPECT_EQ(SumOfBusiest(shape, window, Layer(0), placement.experts_of_slots(Layer(0))), 8);
  EXPECT_EQ(shape.rank_of(placement.replicas(Layer(0), LogicalExpert(0))[0]),
            shape.rank_of(placement.replicas(Layer(0), LogicalExpert(2))[0]));
}

// Expert 0 has replicas on both nodes, twice on node 0: 1/4, 1/4 and 1/2 of its 8.
TEST(SumOfBusiest, SharesReplicasAsTokensFindThem) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 4, .ranks = 4, .nodes = 2};
  const std::vector<double> tokens = {8, 3};
  const LoadWindow window{.rows = 1, .layers = 1, .experts = 2, .tokens = tokens};
  const std::vector<LogicalExpert> experts = {LogicalExpert(0), LogicalExpert(0), LogicalExpert(0), LogicalExpert(1)};
  EXPECT_EQ(SumOfBusiest(shape, window, Layer(0), experts), 4);
}

const PlacementShape kShapes[] = {
    {.layers = 2, .experts = 64, .slots = 72, .ranks = 8, .nodes = 2, .expert_groups = 4},
    {.layers = 2, .experts = 64, .slots = 64, .ranks = 16},
    {.layers = 2, .experts = 32, .slots = 64, .ranks = 16, .nodes = 4},
    {.layers = 1, .experts = 5, .slots = 21, .ranks = 7},
    {.layers = 1, .experts = 8, .slots = 8, .ranks = 1},
};

TEST(Oracle, IsNeverWorseThanEplb) {
  int better = 0, layers = 0;
  RandomStream random(9, "windows");
  for (const PlacementShape& shape : kShapes) {
    for (int rows : {1, 3, 16}) {
      std::vector<double> tokens(static_cast<size_t>(rows) * shape.layers * shape.experts);
      for (double& load : tokens) load = static_cast<double>((1 + random.Below(1000)) >> random.Below(8));
      const LoadWindow window{.rows = rows, .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
      const std::vector<double> total = window.Total();
      const std::vector<float> weight(total.begin(), total.end());
      const Placement oracle = Oracle(shape, window);
      for (int layer = 0; layer < shape.layers; ++layer, ++layers) {
        const auto sum = [&](const Placement& placement) {
          return SumOfBusiest(shape, window, Layer(layer), placement.experts_of_slots(Layer(layer)));
        };
        double eplb = sum(Eplb(weight, shape, EplbPlacement::GLOBAL));
        if (CheckEplbShape(shape, EplbPlacement::HIERARCHICAL).ok()) {
          eplb = std::min(eplb, sum(Eplb(weight, shape, EplbPlacement::HIERARCHICAL)));
        }
        EXPECT_LE(sum(oracle), eplb) << shape.experts << " experts, " << rows << " rows, layer " << layer;
        better += sum(oracle) < eplb;
        // No placement beats perfect balance.
        double mean = 0;
        for (int row = 0; row < rows; ++row) {
          for (double load : window.of(row, Layer(layer))) mean += load / shape.ranks;
        }
        EXPECT_GE(sum(oracle), mean * (1 - 1e-12));
      }
    }
  }
  EXPECT_GT(better, layers / 2);
}

TEST(Oracle, NeedsWholeNodes) {
  EXPECT_EQ(NewOraclePlacement({.layers = 1, .experts = 8, .slots = 8, .ranks = 8, .nodes = 5}).status(),
            absl::InvalidArgumentError("oracle: ranks: 8 are not divisible by 5 nodes; 5 or 10 ranks would fit"));
}

}  // namespace
}  // namespace epsim
