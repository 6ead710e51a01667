#include "policies/placement/placement.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/placement/placement_policy.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::vector<LogicalExpert> Experts(std::initializer_list<int> ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return experts;
}

TEST(PlacementShape, SlotsLieConsecutivelyOnRanksAndRanksOnNodes) {
  // 12 slots on 6 ranks on 2 nodes: 2 slots a rank, 3 ranks (6 slots) a node.
  const PlacementShape shape{.layers = 1, .experts = 8, .slots = 12, .ranks = 6, .nodes = 2};
  EXPECT_EQ(shape.slots_per_rank(), 2);
  EXPECT_EQ(shape.rank_of(Slot{0}), Rank{0});
  EXPECT_EQ(shape.rank_of(Slot{1}), Rank{0});
  EXPECT_EQ(shape.rank_of(Slot{2}), Rank{1});
  EXPECT_EQ(shape.rank_of(Slot{11}), Rank{5});
  EXPECT_EQ(shape.node_of(Rank{2}), Node{0});
  EXPECT_EQ(shape.node_of(Rank{3}), Node{1});
}

TEST(Placement, ListsReplicasInSlotOrderUnlessTold) {
  const PlacementShape shape{.layers = 2, .experts = 2, .slots = 4, .ranks = 2};
  const Placement placement(shape, Experts({1, 0, 1, 1, /**/ 0, 0, 1, 0}));
  EXPECT_THAT(placement.experts_of_slots(Layer{0}), testing::ElementsAreArray(Experts({1, 0, 1, 1})));
  EXPECT_THAT(placement.replicas(Layer{0}, LogicalExpert{0}), ElementsAre(Slot{1}));
  EXPECT_THAT(placement.replicas(Layer{0}, LogicalExpert{1}), ElementsAre(Slot{0}, Slot{2}, Slot{3}));
  EXPECT_THAT(placement.replicas(Layer{1}, LogicalExpert{0}), ElementsAre(Slot{0}, Slot{1}, Slot{3}));
  EXPECT_THAT(placement.replicas(Layer{1}, LogicalExpert{1}), ElementsAre(Slot{2}));
}

TEST(Placement, ListsReplicasInTheGivenOrder) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 4, .ranks = 2};
  const Placement placement(shape, Experts({1, 0, 1, 1}), {2, 0, 0, 1});
  EXPECT_THAT(placement.replicas(Layer{0}, LogicalExpert{1}), ElementsAre(Slot{2}, Slot{3}, Slot{0}));
  // The same experts in the same slots, but another original: not the same placement.
  EXPECT_FALSE(placement == Placement(shape, Experts({1, 0, 1, 1})));
  EXPECT_TRUE(placement == Placement(shape, Experts({1, 0, 1, 1}), {2, 0, 0, 1}));
}

TEST(PlacementDeathTest, RefusesWhatIsNoPlacement) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 3, .ranks = 1};
  EXPECT_DEATH(Placement(shape, Experts({0, 0, 0})), "begin\\[expert \\+ 1\\] > 0");  // Expert 1 is nowhere.
  EXPECT_DEATH(Placement(shape, Experts({0, 1, 2})), "< experts");
  EXPECT_DEATH(Placement(shape, Experts({0, 1, -2})), "< experts");
  EXPECT_DEATH(Placement(shape, Experts({0, 1})), "layers \\* slots");
  EXPECT_DEATH(Placement(shape, Experts({0, 1, 0}), {0, 0, 0}), "place == kNone");  // Two originals.
  EXPECT_DEATH(Placement(shape, Experts({0, 1, 0}), {0, 0, 2}), "order >= 0");
  const Placement placement(shape, Experts({0, 1, 0}));
  EXPECT_DEATH(placement.experts_of_slots(Layer{1}), "layers");
  EXPECT_DEATH(placement.replicas(Layer{0}, LogicalExpert{2}), "experts");
}

TEST(LoadWindow, TotalSumsItsRows) {
  // Two rows of 1 layer x 3 experts.
  const std::vector<double> tokens = {1, 2, 0x1p40, 10, 20.5, 0x1p40};
  const LoadWindow window{.rows = 2, .layers = 1, .experts = 3, .tokens = tokens};
  EXPECT_THAT(window.Total(), ElementsAre(11, 22.5, 0x1p41));
  EXPECT_THAT(window.of(1, Layer{0}), ElementsAre(10, 20.5, 0x1p40));
  const LoadWindow empty{.rows = 0, .layers = 1, .experts = 3, .tokens = {}};
  EXPECT_THAT(empty.Total(), ElementsAre(0, 0, 0));
}

TEST(LoadWindowDeathTest, ChecksItsSize) {
  const std::vector<double> tokens = {1, 1};
  const LoadWindow short_of_one{.rows = 1, .layers = 1, .experts = 3, .tokens = tokens};
  EXPECT_DEATH(short_of_one.Total(), "tokens.size");
}

}  // namespace
}  // namespace epsim
