#include "policies/placement/round_robin_placement.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;

// Rank r holds r and r + 4, then, as every expert is dealt, r again.
TEST(RoundRobinPlacement, DealsExpertsToRanksInTurn) {
  const PlacementShape shape{.layers = 1, .experts = 8, .slots = 12, .ranks = 4};
  const std::vector<double> loads = {9, 0, 0, 0, 0, 0, 0, 1};
  const Placement placement = PlanOnce("round_robin {}", shape, {loads}).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 4, 0, 1, 5, 1, 2, 6, 2, 3, 7, 3));
}

// 5 experts end in the middle of a round: rank 2 goes on with expert 5 mod 5.
TEST(RoundRobinPlacement, StartsOverWithinARound) {
  const PlacementShape shape{.layers = 2, .experts = 5, .slots = 6, .ranks = 3};
  const Placement placement = PlanOnce("round_robin {}", shape, {}).value();  // No load is needed.
  for (int layer : {0, 1}) {
    EXPECT_THAT(Phy2Log(placement, layer), ElementsAre(0, 3, 1, 4, 2, 0));
    EXPECT_THAT(Log2Phy(placement, layer)[0], ElementsAre(0, 5));
  }
}

}  // namespace
}  // namespace epsim
