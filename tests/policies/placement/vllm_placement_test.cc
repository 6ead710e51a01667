#include "policies/placement/vllm_placement.h"

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;

// The README of deepseek-ai/EPLB, whose loads tie nowhere: where arithmetic does not matter the two agree.
TEST(Vllm, PlacesDeepSeeksReadmeAsEplb) {
  const std::vector<double> loads = {90, 132, 40,  61, 104, 165, 39,  4,   73,  56, 183, 86,
                                     20, 107, 104, 64, 19,  197, 187, 157, 172, 86, 16,  27};
  const PlacementShape shape{.layers = 2, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 4};
  const Placement placement = PlanOnce("vllm {}", shape, {loads}).value();
  EXPECT_THAT(Phy2Log(placement, 0), ElementsAre(5, 6, 5, 7, 8, 4, 3, 4, 10, 9, 10, 2, 0, 1, 11, 1));
  EXPECT_THAT(Phy2Log(placement, 1), ElementsAre(7, 10, 6, 8, 6, 11, 8, 9, 2, 4, 5, 1, 5, 0, 3, 1));
  EXPECT_THAT(Log2Phy(placement, 0)[1], ElementsAre(13, 15));  // Ascending; EPLB has 15, the original, first.
}

// Loads 1 and float32(1/3), five slots.  With three replicas of expert 0, float32 holds 1 / 3 = float32(1/3) a tie, and
// EPLB gives the last slot to the lower expert.  In float64 1 / 3 is 0.333333333 < 0.333333343: expert 1 has more.
TEST(Vllm, DividesInFloat64) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 5, .ranks = 1};
  const std::vector<double> loads = {1, static_cast<double>(1.0f / 3)};
  EXPECT_THAT(Phy2Log(PlanOnce("eplb {}", shape, {loads}).value()), ElementsAre(1, 0, 0, 0, 0));
  EXPECT_THAT(Phy2Log(PlanOnce("vllm {}", shape, {loads}).value()), ElementsAre(0, 0, 0, 1, 1));
}

// Two nodes do not divide three ranks: one node, onto which both groups are packed, the heavier (10) before the lighter
// (6).  So of the three loads of 5 those of experts 2 and 3 come first, and get the redundant slots.  By falling share:
// 1 (5), 2 3 2' 3' (2.5 each), 0 (1): 1 -> rank 0; 2 -> 1; 3 -> 2; 2' -> 1, the lower of two with 2.5; 3' -> 2; 0 -> 0.
TEST(Vllm, CountsNodesThatDoNotDivideTheRanksAsOne) {
  PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 3, .nodes = 2, .expert_groups = 2};
  EXPECT_THAT(Phy2Log(PlanOnce("vllm {}", shape, {{1, 5, 5, 5}}).value()), ElementsAre(1, 0, 2, 2, 3, 3));
  // Without groups experts 1 and 2 get them: 3 (5) -> rank 0; 1 -> 1; 2 -> 2; 1' -> 1; 2' -> 2; 0 -> 0.
  shape.expert_groups = 1;
  EXPECT_THAT(Phy2Log(PlanOnce("vllm {}", shape, {{1, 5, 5, 5}}).value()), ElementsAre(3, 0, 1, 1, 2, 2));
}

TEST(Vllm, NeedsGroupsThatDivideTheExperts) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 3, .nodes = 2, .expert_groups = 3};
  EXPECT_EQ(PlanOnce("vllm {}", shape, {{1, 5, 5, 5}}).status().message(),
            "vllm: expert_groups: 3 do not divide 4 experts; 1 would fit");
}

std::vector<int> Kept(const std::vector<int>& old, const std::vector<int>& placed) {
  std::vector<LogicalExpert> old_ids, ids;
  for (int id : old) old_ids.push_back(LogicalExpert(id));
  for (int id : placed) ids.push_back(LogicalExpert(id));
  KeepSlots(old_ids, absl::MakeSpan(ids));
  std::vector<int> kept;
  for (LogicalExpert id : ids) kept.push_back(static_cast<int>(id));
  return kept;
}

TEST(KeepSlots, PutsExpertsThatStayIntoTheirOldSlots) {
  EXPECT_THAT(Kept({0, 1, 2, 3}, {3, 1, 4, 0}), ElementsAre(0, 1, 4, 3));
  EXPECT_THAT(Kept({0, 1, 2}, {7, 6, 5}), ElementsAre(7, 6, 5));  // All come new: in their order.
  EXPECT_THAT(Kept({0, 1, 2}, {2, 0, 1}), ElementsAre(0, 1, 2));
}

// Two replicas on the rank take two old slots of their expert, one takes the first.
TEST(KeepSlots, MatchesReplicasOneByOne) {
  EXPECT_THAT(Kept({4, 0, 0, 2}, {0, 5, 6, 0}), ElementsAre(5, 0, 0, 6));
  EXPECT_THAT(Kept({4, 0, 0, 2}, {5, 6, 0, 7}), ElementsAre(5, 0, 6, 7));
  EXPECT_THAT(Kept({4, 0, 1, 2}, {0, 5, 0, 6}), ElementsAre(5, 0, 0, 6));
}

TEST(KeepSlots, TakesNoExpertForNone) { EXPECT_THAT(Kept({-1, 7}, {7, 2}), ElementsAre(2, 7)); }

// Loads 4 3 2 1, then 3 4 2 1: 0 -> rank 0, 1 -> rank 1, 2 -> 1, 3 -> 0; then 1 -> rank 0, 0 -> 1, 2 -> 1, 3 -> 0.
// Expert 3 stays on rank 0 in slot 1, expert 2 on rank 1 in slot 3.  Loads 1 3 2 4 put 3
// and then 0 on rank 0: both stay, and swap slots unless kept.
TEST(Vllm, MovesNoExpertWithinItsRankUnlessTold) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 4, .ranks = 2};
  const Placement first = PlanOnce("vllm {}", shape, {{4, 3, 2, 1}}).value();
  EXPECT_THAT(Phy2Log(first), ElementsAre(0, 3, 1, 2));
  const auto next = [&](const std::string& config, std::vector<double> loads) {
    return Phy2Log(PlanOnce(config, shape, {loads}, &first).value());
  };
  EXPECT_THAT(next("vllm {}", {3, 4, 2, 1}), ElementsAre(1, 3, 0, 2));
  EXPECT_THAT(next("vllm {}", {1, 3, 2, 4}), ElementsAre(0, 3, 1, 2));
  EXPECT_THAT(next("vllm { preserve_intragpu_slots: true }", {1, 3, 2, 4}), ElementsAre(0, 3, 1, 2));
  EXPECT_THAT(next("vllm { preserve_intragpu_slots: false }", {1, 3, 2, 4}), ElementsAre(3, 0, 1, 2));
  // A placement of another shape has no slots to keep.
  const PlacementShape wider{.layers = 1, .experts = 4, .slots = 8, .ranks = 2};
  const Placement other = PlanOnce("contiguous {}", wider, {}).value();
  EXPECT_THAT(Phy2Log(PlanOnce("vllm {}", shape, {{1, 3, 2, 4}}, &other).value()), ElementsAre(3, 0, 1, 2));
}

}  // namespace
}  // namespace epsim
