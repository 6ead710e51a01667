#include "policies/placement/placement_change.h"

#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

constexpr PlacementShape kShape{.layers = 3, .experts = 2, .slots = 3, .ranks = 3};

std::vector<LogicalExpert> Experts(const std::vector<int>& ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return experts;
}

TEST(PlacementChange, StartsAsAServerDoes) {
  PlacementChange change(kShape, {});
  EXPECT_THAT(change.layers(), ElementsAre(Layer{0}, Layer{1}, Layer{2}));
  PlacementChange::Result result = std::move(change).Finish();
  EXPECT_TRUE(result.placement == Placement(kShape, Experts({0, 1, 0, 0, 1, 0, 0, 1, 0})));
  EXPECT_THAT(result.order, IsEmpty());
}

// Layers 0 and 2 change; layer 1 keeps even the order of its replicas, which is not that of its slots.
TEST(PlacementChange, ChangesTheLayersItIsTold) {
  const Placement previous(kShape, Experts({0, 1, 0, 1, 1, 0, 0, 1, 0}), {0, 0, 1, 1, 0, 0, 0, 0, 1});
  PlacementRequest request;
  request.previous = &previous;
  PlacementChange change(kShape, request);
  change.Change(Layer{2}, Experts({1, 1, 0}), 0.5);
  change.Change(Layer{0}, Experts({1, 0, 0}), 0.5);
  change.Change(Layer{1}, Experts({1, 1, 0}), -3);
  PlacementChange::Result result = std::move(change).Finish();
  EXPECT_TRUE(result.placement == Placement(kShape, Experts({1, 0, 0, 1, 1, 0, 1, 1, 0})));
  EXPECT_THAT(result.order, ElementsAre(Layer{1}, Layer{0}, Layer{2}));  // By priority, then layer.

  PlacementChange some(kShape, request);
  some.Change(Layer{0}, Experts({1, 0, 0}), 0);
  result = std::move(some).Finish();
  EXPECT_EQ(result.placement.experts_of_slots(Layer{0}), absl::MakeConstSpan(Experts({1, 0, 0})));
  EXPECT_THAT(result.placement.replicas(Layer{1}, LogicalExpert{1}), ElementsAre(Slot{1}, Slot{0}));
}

TEST(PlacementChange, KnowsSlotsThatLostTheirRank) {
  const Placement previous(kShape, Experts({0, 1, 0, 1, -1, 0, 0, 1, 0}));
  PlacementRequest request;
  request.previous = &previous;
  const PlacementChange change(kShape, request);
  EXPECT_FALSE(change.HasEmptySlots(Layer{0}));
  EXPECT_TRUE(change.HasEmptySlots(Layer{1}));
}

}  // namespace
}  // namespace epsim
