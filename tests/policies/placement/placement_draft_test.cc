#include "policies/placement/placement_draft.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::Each;
using testing::ElementsAre;
using Rows = std::vector<std::vector<int>>;

const PlacementShape kShape{.layers = 3, .experts = 2, .slots = 4, .ranks = 2};

std::vector<LogicalExpert> Experts(const std::vector<int>& ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return experts;
}

void Fill(PlacementDraft* draft, Layer layer, const std::vector<int>& ids) {
  const std::vector<LogicalExpert> experts = Experts(ids);
  std::copy(experts.begin(), experts.end(), draft->experts_of_slots(layer).begin());
}

// Replicas of expert 1 in layer 0: slot 3, then 0.  In layer 2 a rank is away.
Placement Previous() {
  return Placement(kShape, Experts({1, 0, 0, 1, /**/ 0, 0, 1, 1, /**/ 1, 0, -1, -1}),
                   {1, 0, 1, 0, /**/ 0, 1, 0, 1, /**/ 0, 0, 0, 0});
}

TEST(PlacementDraft, AllLayersAreOpenUnlessSomeAreAskedFor) {
  PlacementDraft draft(kShape, {});
  EXPECT_THAT(draft.layers(), ElementsAre(Layer{0}, Layer{1}, Layer{2}));
  for (Layer layer : draft.layers()) {
    EXPECT_THAT(draft.experts_of_slots(layer), Each(kNoExpert));
    Fill(&draft, layer, {0, 1, 0, 0});
    draft.OrderBySlot(layer);
  }
  EXPECT_THAT(draft.replica_order(Layer{2}), ElementsAre(0, 0, 1, 2));
  const Placement placement = std::move(draft).Finish();
  EXPECT_THAT(Phy2Log(placement, 2), ElementsAre(0, 1, 0, 0));
  EXPECT_THAT(Log2Phy(placement, 2), Rows({{0, 2, 3}, {1}}));
}

TEST(PlacementDraft, OtherLayersStayAsTheyAre) {
  const Placement previous = Previous();
  const Layer asked[] = {Layer{1}};
  PlacementRequest request;
  request.previous = &previous;
  request.layers = asked;
  PlacementDraft draft(kShape, request);
  EXPECT_THAT(draft.layers(), ElementsAre(Layer{1}));
  EXPECT_THAT(draft.experts_of_slots(Layer{1}), Each(kNoExpert));
  Fill(&draft, Layer{1}, {1, 1, 1, 0});
  std::vector<int32_t> order = {2, 0, 1, 0};
  std::copy(order.begin(), order.end(), draft.replica_order(Layer{1}).begin());
  const Placement placement = std::move(draft).Finish();
  EXPECT_THAT(Phy2Log(placement, 0), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(Log2Phy(placement, 0), Rows({{1, 2}, {3, 0}}));  // The order that was given, then as now.
  EXPECT_THAT(Log2Phy(placement, 1), Rows({{3}, {1, 2, 0}}));
  EXPECT_THAT(Phy2Log(placement, 2), ElementsAre(1, 0, -1, -1));
  EXPECT_THAT(Log2Phy(placement, 2), Rows({{1}, {0}}));
}

TEST(PlacementDraft, EmptySlotsAreNobodysReplicas) {
  PlacementRequest request;
  PlacementDraft draft({.layers = 1, .experts = 2, .slots = 5, .ranks = 1}, request);
  Fill(&draft, Layer{0}, {1, -1, 0, -1, 1});
  draft.OrderBySlot(Layer{0});
  EXPECT_THAT(Log2Phy(std::move(draft).Finish()), Rows({{2}, {0, 4}}));
}

TEST(PlacementDraftDeathTest, NeedsWhatItIsToKeepAndEveryExpert) {
  const Layer last[] = {Layer{2}}, unordered[] = {Layer{2}, Layer{0}}, beyond[] = {Layer{3}};
  const Placement previous = Previous();
  PlacementRequest request;
  request.layers = last;
  EXPECT_DEATH(PlacementDraft(kShape, request), "request.previous != nullptr");
  request.previous = &previous;
  PlacementShape other = kShape;
  other.nodes = 2;
  EXPECT_DEATH(PlacementDraft(other, request), "previous->shape\\(\\) == shape");
  EXPECT_DEATH(PlacementDraft(kShape, request).Finish(), "begin\\[expert \\+ 1\\] > 0");  // Layer 2 was not filled.
  request.layers = unordered;
  EXPECT_DEATH(PlacementDraft(kShape, request), "is_sorted");
  request.layers = beyond;
  EXPECT_DEATH(PlacementDraft(kShape, request), "shape.layers");
}

}  // namespace
}  // namespace epsim
