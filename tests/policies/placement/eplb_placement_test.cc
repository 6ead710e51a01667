#include "policies/placement/eplb_placement.h"

#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

using Rows = std::vector<std::vector<int>>;

// The README of deepseek-ai/EPLB: 2 layers of 12 experts in 4 groups, 16 slots on 8 GPUs of 2 nodes.
TEST(Eplb, ReproducesDeepSeeksReadme) {
  const std::vector<float> weight = {90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                     20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
  const PlacementShape shape{.layers = 2, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 4};
  const Placement placement = Eplb(weight, shape, EplbPlacement::AUTO);
  EXPECT_THAT(Phy2Log(placement, 0), ElementsAre(5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1));
  EXPECT_THAT(Phy2Log(placement, 1), ElementsAre(7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1));
  // Experts 1 and 4 of layer 0: the replica that was made later lies in the lower slot.
  EXPECT_THAT(Log2Phy(placement, 0),
              Rows({{12}, {15, 13}, {11}, {6}, {7, 5}, {0, 2}, {1}, {3}, {4}, {9}, {8, 10}, {14}}));
  EXPECT_TRUE(placement == Eplb(weight, shape, EplbPlacement::HIERARCHICAL));
}

// Loads 6 1 4 1, 6 slots on 3 ranks.  Slot 4 goes to expert 0 (6 -> 3 + 3), slot 5 to expert 2 (4 -> 2 + 2).  Replicas
// by falling share: 0 0' 2 2' 1 3 = 3 3 2 2 1 1.  0 -> rank 0, 0' -> rank 1, 2 -> rank 2 (the three empty ones, lowest
// first), 2' -> rank 2 (2 < 3), which is full; 1 -> rank 0, 3 -> rank 1.  Every rank carries 4.
TEST(Eplb, ReplicatesTheHeaviestAndPacksTheHeaviestFirst) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 3};
  const Placement placement = Eplb({6, 1, 4, 1}, shape, EplbPlacement::GLOBAL);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, 0, 3, 2, 2));
  EXPECT_THAT(Log2Phy(placement), Rows({{0, 2}, {1}, {4, 5}, {3}}));
}

// Group loads 9 1 7 6: group 0 -> node 0, group 2 -> node 1, group 3 -> node 1 (7 < 9), group 1 -> node 0.
// Node 0 has experts 0..3 with 5 4 1 0: 0 -> rank 0, 1 -> rank 1, 2 -> rank 1 (4 < 5), 3 -> rank 0.
// Node 1 has experts 4..7 with 3 4 6 0: 6 -> rank 2, 5 -> rank 3, 4 -> rank 3 (4 < 6), 7 -> rank 2.
// Globally: 6 -> rank 0, 0 -> 1, 1 -> 2, 5 -> 3, 4 -> 2 (4 4, the lower), 2 -> 3, 3 -> 1, 7 -> 0.
TEST(Eplb, PacksGroupsOntoNodesWhereTheNodesDivideThem) {
  const std::vector<float> weight = {5, 4, 1, 0, 3, 4, 6, 0};
  PlacementShape shape{.layers = 1, .experts = 8, .slots = 8, .ranks = 4, .nodes = 2, .expert_groups = 4};
  const std::vector<int> hierarchical = {0, 3, 1, 2, 6, 7, 5, 4}, global = {6, 7, 0, 3, 1, 4, 5, 2};
  EXPECT_EQ(Phy2Log(Eplb(weight, shape, EplbPlacement::AUTO)), hierarchical);
  EXPECT_EQ(Phy2Log(Eplb(weight, shape, EplbPlacement::HIERARCHICAL)), hierarchical);
  EXPECT_EQ(Phy2Log(Eplb(weight, shape, EplbPlacement::GLOBAL)), global);
  shape.expert_groups = 1;  // 2 nodes do not divide 1 group: the reference falls back to global.
  EXPECT_EQ(Phy2Log(Eplb(weight, shape, EplbPlacement::AUTO)), global);
  shape.nodes = 3;  // Nor need they divide the ranks then.
  EXPECT_EQ(Phy2Log(Eplb(weight, shape, EplbPlacement::AUTO)), global);
}

// As many groups as nodes are not sorted: the heavier group 1 stays on node 1.
TEST(Eplb, KeepsOneGroupPerNodeInOrder) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 4, .ranks = 2, .nodes = 2, .expert_groups = 2};
  EXPECT_THAT(Phy2Log(Eplb({1, 2, 30, 40}, shape, EplbPlacement::AUTO)), ElementsAre(1, 0, 3, 2));
}

// With one slot a rank nothing is sorted: experts in order, then the replicas as made.  5 -> 2.5 is still above 1.
TEST(Eplb, KeepsOneSlotPerRankInOrder) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 4, .ranks = 4};
  const Placement placement = Eplb({1, 5}, shape, EplbPlacement::AUTO);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, 1, 1));
  EXPECT_THAT(Log2Phy(placement), Rows({{0}, {1, 2, 3}}));
}

// One rank takes all, by falling share: 3, 2.5, 2.5, 1.
TEST(Eplb, SortsOnASingleRank) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 1};
  const Placement placement = Eplb({1, 5, 3}, shape, EplbPlacement::AUTO);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(2, 1, 1, 0));
  EXPECT_THAT(Log2Phy(placement), Rows({{3}, {1, 2}, {0}}));
}

// All ties: expert 0 has the most load per replica each time, and rank 0 the least load until it is full.
TEST(Eplb, GivesExpertZeroEveryReplicaWhereNothingWasMeasured) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 2};
  const Placement placement = Eplb({0, 0, 0, 0}, shape, EplbPlacement::AUTO);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, 2, 3, 0, 0));
  EXPECT_THAT(Log2Phy(placement), Rows({{0, 4, 5}, {1}, {2}, {3}}));
  EXPECT_TRUE(placement == Eplb({-0.0f, 0, -0.0f, 0}, shape, EplbPlacement::AUTO));
}

// 20 equal experts on 2 ranks alternate, in order; more than 16, where an unstable std::sort would reorder them.
TEST(Eplb, KeepsTheOrderOfEqualWeights) {
  const PlacementShape shape{.layers = 1, .experts = 20, .slots = 20, .ranks = 2};
  EXPECT_THAT(Phy2Log(Eplb(std::vector<float>(20, 7), shape, EplbPlacement::AUTO)),
              ElementsAre(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19));
}

// Each layer is placed on its own.
TEST(Eplb, LayersDoNotTouchEachOther) {
  PlacementShape shape{.layers = 2, .experts = 4, .slots = 6, .ranks = 3};
  const Placement both = Eplb({6, 1, 4, 1, 0, 0, 9, 1}, shape, EplbPlacement::AUTO);
  shape.layers = 1;
  EXPECT_EQ(Phy2Log(both, 0), Phy2Log(Eplb({6, 1, 4, 1}, shape, EplbPlacement::AUTO)));
  EXPECT_EQ(Log2Phy(both, 1), Log2Phy(Eplb({0, 0, 9, 1}, shape, EplbPlacement::AUTO)));
}

Placement PlaceTokens(const std::vector<double>& tokens, const PlacementShape& shape) {
  RandomStream random(1, "eplb_placement_test");
  PlacementRequest request;
  request.window = {.rows = static_cast<int>(tokens.size() / (shape.layers * shape.experts)),
                    .layers = shape.layers,
                    .experts = shape.experts,
                    .tokens = tokens};
  request.random = &random;
  return NewEplbPlacement(EplbPlacement(), shape).value()->Place(request).value();
}

// 2^24 + 1 is no float32: it rounds to 2^24 (to even), ties with expert 0, and expert 0 gets the replica.
// 2^24 + 2 is one, and wins.
TEST(EplbPolicy, RoundsCountsToFloat32AsTheReference) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 3, .ranks = 3};
  EXPECT_THAT(Phy2Log(PlaceTokens({16777216, 16777217}, shape)), ElementsAre(0, 1, 0));
  EXPECT_THAT(Phy2Log(PlaceTokens({16777216, 16777218}, shape)), ElementsAre(0, 1, 1));
}

// The rows of the window are added first: 5 + 0 against 1 + 5.
TEST(EplbPolicy, PlacesByTheTotalOfTheWindow) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 3, .ranks = 3};
  EXPECT_THAT(Phy2Log(PlaceTokens({5, 1, 0, 5}, shape)), ElementsAre(0, 1, 1));
}

TEST(EplbPolicy, SaysWhichShapesItCannotServe) {
  PlacementShape shape{.layers = 1, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 3};
  EplbPlacement config;
  config.set_mode(EplbPlacement::HIERARCHICAL);
  EXPECT_EQ(NewEplbPlacement(config, shape).status().message(),
            "eplb: mode: HIERARCHICAL needs nodes that divide the expert groups, not 2 nodes and 3 groups; "
            "AUTO or GLOBAL would fit");
  config.set_mode(EplbPlacement::AUTO);
  EXPECT_TRUE(NewEplbPlacement(config, shape).ok());
  shape.expert_groups = 8;
  EXPECT_THAT(NewEplbPlacement(config, shape).status().message(),
              HasSubstr("expert_groups: 8 do not divide 12 experts"));
  shape.expert_groups = 6;
  shape.nodes = 3;
  EXPECT_THAT(NewEplbPlacement(config, shape).status().message(),
              HasSubstr("ranks: 8 are not divisible by 3 nodes; 6 or 9 ranks"));
  config.set_mode(EplbPlacement::GLOBAL);
  EXPECT_TRUE(NewEplbPlacement(config, shape).ok());
  config.set_mode(static_cast<EplbPlacement::Mode>(7));
  EXPECT_THAT(NewEplbPlacement(config, shape).status().message(), HasSubstr("mode: 7 is not"));
}

TEST(EplbDeathTest, RefusesWeightsThatAreNoLoads) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  EXPECT_DEATH(Eplb({1, -1}, shape, EplbPlacement::AUTO), "load >= 0");
  EXPECT_DEATH(Eplb({1, std::numeric_limits<float>::quiet_NaN()}, shape, EplbPlacement::AUTO), "isfinite");
  EXPECT_DEATH(Eplb({1, 2, 3}, shape, EplbPlacement::AUTO), "weight.size");
}

}  // namespace
}  // namespace epsim
