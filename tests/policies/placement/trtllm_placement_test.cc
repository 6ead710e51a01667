#include "policies/placement/trtllm_placement.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using Rows = std::vector<std::vector<int>>;

// As eplb_placement_test.cc: 6 -> 3 + 3, 4 -> 2 + 2; 0 0' 2 -> the three empty ranks, 2' -> rank 2, 1 -> 0, 3 -> 1.
TEST(Trtllm, ReplicatesTheHeaviestAndPacksTheHeaviestFirst) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 3};
  const Placement placement = PlanOnce("trtllm {}", shape, {{6, 1, 4, 1}}).value();
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, 0, 3, 2, 2));
  EXPECT_EQ(Log2Phy(placement), Rows({{0, 2}, {1}, {4, 5}, {3}}));
}

// Loads 4 4 1: the replica goes to expert 1.  Shares 4, 2 2, 1: 0 -> rank 0, 1 -> 1, 1' -> 1 (2 < 4), 2 -> 0.
// EPLB gives it to expert 0: 1 (4) -> rank 0, 0 -> 1, 0' -> 1, 2 -> 0.
TEST(Trtllm, GivesAReplicaToTheHighestOfEqualExperts) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};
  EXPECT_THAT(Phy2Log(PlanOnce("trtllm {}", shape, {{4, 4, 1}}).value()), ElementsAre(0, 2, 1, 1));
  EXPECT_THAT(Phy2Log(PlanOnce("eplb {}", shape, {{4, 4, 1}}).value()), ElementsAre(1, 2, 0, 0));
}

// 8 slots / 3 experts: 2 each, one more to experts 0 and 1; the ranks fill one after another, all loads being 0.
TEST(Trtllm, DealsSlotsEvenlyWhereThereIsNoLoad) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 8, .ranks = 2};
  EXPECT_THAT(Phy2Log(PlanOnce("trtllm {}", shape, {{0, 0, 0}}).value()), ElementsAre(0, 0, 0, 1, 1, 1, 2, 2));
}

// EPLB keeps the order where each rank has one slot; here the heaviest goes to rank 0.
TEST(Trtllm, SortsAlsoWhereEachRankHasOneSlot) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 3, .ranks = 3};
  EXPECT_THAT(Phy2Log(PlanOnce("trtllm {}", shape, {{1, 3, 2}}).value()), ElementsAre(1, 2, 0));
  EXPECT_THAT(Phy2Log(PlanOnce("eplb {}", shape, {{1, 3, 2}}).value()), ElementsAre(0, 1, 2));
}

// Nodes and groups do not matter, also where they divide nothing.
TEST(Trtllm, IsGlobal) {
  const std::vector<double> loads = {5, 4, 1, 0, 3, 4, 6, 0};
  const PlacementShape odd{.layers = 1, .experts = 8, .slots = 12, .ranks = 4, .nodes = 3, .expert_groups = 3};
  const PlacementShape plain{.layers = 1, .experts = 8, .slots = 12, .ranks = 4};
  EXPECT_EQ(Phy2Log(PlanOnce("trtllm {}", odd, {loads}).value()),
            Phy2Log(PlanOnce("trtllm {}", plain, {loads}).value()));
}

}  // namespace
}  // namespace epsim
