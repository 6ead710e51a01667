#include "policies/placement/elasticity_aware_placement.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"
#include "tests/policies/placement/drawn_windows.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using Rows = std::vector<std::vector<int>>;

PlacementPolicyConfig ElasticityAware() {
  PlacementPolicyConfig config;
  config.mutable_elasticity_aware();
  return config;
}

// Whatever the nodes and groups: SGLang never chooses the hierarchical variant.
TEST(ElasticityAware, IsEplbsGlobalPolicyWhileAllRanksAreThere) {
  RandomStream random(1, "elasticity_aware");
  int hierarchical_differs = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const DrawnWindow drawn = DrawWindow(&random);
    PlacementRequest request;
    request.window = drawn.window();
    request.random = &random;
    const std::vector<double> total = request.window.Total();
    const std::vector<float> weight(total.begin(), total.end());
    const Placement placement = NewPlacementPolicy(ElasticityAware(), drawn.shape).value()->Place(request).value();
    ASSERT_TRUE(placement == Eplb(weight, drawn.shape, EplbPlacement::GLOBAL)) << drawn;
    hierarchical_differs += !(placement == Eplb(weight, drawn.shape, EplbPlacement::AUTO));
  }
  EXPECT_GT(hierarchical_differs, 30);
}

// Loads 6 1 4 1 on 4 ranks of 2 slots, of which rank 1 is away.  EPLB on three ranks (eplb_placement_test.cc) makes
//   0 1 | 0 3 | 2 2, replicas 0: {0, 2}, 1: {1}, 2: {4, 5}, 3: {3}
// and each slot from the second rank on is one rank's slots further.  SGLang puts expert 0 into the slots of rank 1,
// for want of a sign for none.
TEST(ElasticityAware, PlacesGloballyOnTheActiveRanksAndShiftsPastTheInactiveOnes) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 8, .ranks = 4, .nodes = 2, .expert_groups = 2};
  const std::vector<double> tokens = {6, 1, 4, 1};
  const std::vector<Rank> failed = {Rank{1}};
  RandomStream random(1, "elasticity_aware");
  PlacementRequest request;
  request.window = {.rows = 1, .layers = 1, .experts = 4, .tokens = tokens};
  request.failed = failed;
  request.random = &random;
  const Placement placement = NewPlacementPolicy(ElasticityAware(), shape).value()->Place(request).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, -1, -1, 0, 3, 2, 2));
  EXPECT_THAT(Log2Phy(placement), Rows({{0, 4}, {1}, {6, 7}, {5}}));
}

// Two inactive ranks, the first and one between: slots go on past both.
TEST(ElasticityAware, ShiftsPastEachInactiveRank) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 10, .ranks = 5};
  const std::vector<double> tokens = {6, 1, 4, 1};
  const std::vector<Rank> failed = {Rank{0}, Rank{3}};
  RandomStream random(1, "elasticity_aware");
  PlacementRequest request;
  request.window = {.rows = 1, .layers = 1, .experts = 4, .tokens = tokens};
  request.failed = failed;
  request.random = &random;
  const Placement placement = NewPlacementPolicy(ElasticityAware(), shape).value()->Place(request).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(-1, -1, 0, 1, 0, 3, -1, -1, 2, 2));
  EXPECT_THAT(Log2Phy(placement), Rows({{2, 4}, {3}, {8, 9}, {5}}));
}

}  // namespace
}  // namespace epsim
