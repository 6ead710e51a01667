#include "policies/placement/eplb_vec_placement.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Rows = std::vector<std::vector<int>>;

const PlacementShape kFour{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};

// Experts 0 and 1 peak in one step each, expert 2 never, though it has the most tokens.
//   score:  row 0: 10, 0.0001, 8.0002   row 1: 0, 10.0001, 8.0002
// The peaks add up to 20.0001.  A replica of 0 leaves max(8.0002, 10 / 2) in row 0: 18.0003 in all; one of 1 leaves
// 8.0002 in row 1: 18.0002; one of 2 changes nothing.  So 1.  Shares of the total: 10, 5 5, 16; falling: 2 0 | 1' is on
// the left of the reversed row: rank 1 takes 0 and 1, rank 0 takes 2 and 1'.
TEST(EplbVec, LowersThePeaksOfTheStepsNotTheTotal) {
  const Placement placement = PlanOnce("eplb_vec {}", kFour, {{10, 0, 8}, {0, 10, 8}}).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(2, 1, 0, 1));
  EXPECT_EQ(Log2Phy(placement), Rows({{2}, {3, 1}, {0}}));  // The original of 1, though in a higher slot, is first.
}

// The same tokens as one step: expert 2 has the peak of 16.0002, and 10.0001 is left.  Shares 10 10 8 8.
TEST(EplbVec, TakesOneRowForOneStep) {
  const Placement placement = PlanOnce("eplb_vec {}", kFour, {{10, 10, 16}}).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 2, 1, 2));
  EXPECT_EQ(Log2Phy(placement), Rows({{0}, {2}, {3, 1}}));
}

// Peaks of 4 in a row where 0 and 1 tie but for the term in e: 1 is the peak (4.0001), a replica leaves 4.
TEST(EplbVec, BreaksTiesInTheScoreByTheHigherExpert) {
  EXPECT_EQ(Log2Phy(PlanOnce("eplb_vec {}", kFour, {{4, 4, 1}}).value())[1].size(), 2u);
}

// No load: the peak is expert 2 (0.0002) and a replica of it leaves 0.0001: also of no load, the term counts.  Then
// expert 2 has 0.0001 as expert 1: in float32 2 * 1e-4 / 2 is 1e-4 exactly, so that 1, the lower, is the peak, and its
// replica leaves 0.0001 (of 2), no less than now: no expert lowers the sum, and the first, 0, gets the slot.
TEST(EplbVec, GivesASlotThatHelpsNobodyToTheFirstExpert) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 5, .ranks = 1};
  EXPECT_EQ(Log2Phy(PlanOnce("eplb_vec {}", shape, {{0, 0, 0}}).value()), Rows({{0, 4}, {1}, {2, 3}}));
}

// One slot a rank is not sorted: the originals, then the replicas in the order of their creation.
TEST(EplbVec, KeepsTheOrderOfOneSlotARank) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 4};
  EXPECT_THAT(Phy2Log(PlanOnce("eplb_vec {}", shape, {{1, 9, 4}}).value()), ElementsAre(0, 1, 2, 1));
}

// Globally, by falling load: 6 0 1 5 | 4 2 3 7, the second row reversed: rank 3 takes 5 and 4, ... rank 0 takes 6
// and 7. Hierarchically group loads are 9 1 7 6: groups 0 and 1 go to node 0, 2 and 3 to node 1 (as in
// eplb_placement_test.cc). Node 0: 0 1 | 2 3 reversed; node 1: 6 5 | 4 7 reversed.
TEST(EplbVec, PacksGroupsOntoNodesWhereTheNodesDivideThem) {
  const std::vector<double> loads = {5, 4, 1, 0, 3, 4, 6, 0};
  PlacementShape shape{.layers = 1, .experts = 8, .slots = 8, .ranks = 4, .nodes = 2, .expert_groups = 4};
  const std::vector<int> hierarchical = {0, 3, 1, 2, 6, 7, 5, 4}, global = {6, 7, 0, 3, 1, 2, 5, 4};
  EXPECT_EQ(Phy2Log(PlanOnce("eplb_vec {}", shape, {loads}).value()), hierarchical);
  EXPECT_EQ(Phy2Log(PlanOnce("eplb_vec { mode: HIERARCHICAL }", shape, {loads}).value()), hierarchical);
  EXPECT_EQ(Phy2Log(PlanOnce("eplb_vec { mode: GLOBAL }", shape, {loads}).value()), global);
  shape.expert_groups = 1;
  EXPECT_EQ(Phy2Log(PlanOnce("eplb_vec {}", shape, {loads}).value()), global);
}

// Unlike EPLB it sorts also where each node gets one group: the heavier, group 1, goes to node 0.
TEST(EplbVec, SortsGroupsAlsoWhereEachNodeGetsOne) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 4, .ranks = 2, .nodes = 2, .expert_groups = 2};
  EXPECT_THAT(Phy2Log(PlanOnce("eplb_vec {}", shape, {{1, 2, 9, 9}}).value()), ElementsAre(2, 3, 1, 0));
  EXPECT_THAT(Phy2Log(PlanOnce("eplb {}", shape, {{1, 2, 9, 9}}).value()), ElementsAre(1, 0, 2, 3));
}

TEST(EplbVec, SaysWhichShapesWouldFit) {
  const auto message = [](const std::string& config, const PlacementShape& shape) {
    return std::string(PlanOnce(config, shape, {}).status().message());
  };
  PlacementShape shape{.layers = 1, .experts = 12, .slots = 24, .ranks = 6, .nodes = 4, .expert_groups = 6};
  EXPECT_EQ(message("eplb_vec { mode: HIERARCHICAL }", shape),
            "eplb_vec: mode: HIERARCHICAL needs nodes that divide the expert groups, not 4 nodes and 6 groups; AUTO or "
            "GLOBAL would fit");
  shape.expert_groups = 4;
  EXPECT_EQ(message("eplb_vec {}", shape),
            "eplb_vec: ranks: 6 are not divisible by 4 nodes; 4 or 8 ranks, or mode GLOBAL, would fit");
  shape.expert_groups = 8;
  EXPECT_EQ(message("eplb_vec {}", shape),
            "eplb_vec: expert_groups: 8 do not divide 12 experts; 1 or mode GLOBAL would fit");
  EXPECT_THAT(message("eplb_vec { mode: 7 }", shape), HasSubstr("7"));
}

}  // namespace
}  // namespace epsim
