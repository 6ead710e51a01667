#include "policies/placement/random_placement.h"

#include <map>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

// 24,000 layers of 4 experts in 4 slots: each of the 24 orders 1,000 times, standard deviation sqrt(1000 * 23/24) = 31.
TEST(RandomPlacement, IsUniformOverTheOrders) {
  const PlacementShape shape{.layers = 24000, .experts = 4, .slots = 4, .ranks = 2};
  const Placement placement = PlanOnce("random {}", shape, {}).value();
  std::map<std::vector<int>, int> times;
  for (int layer = 0; layer < shape.layers; ++layer) ++times[Phy2Log(placement, layer)];
  EXPECT_EQ(times.size(), 24u);
  for (const auto& [order, count] : times) EXPECT_NEAR(count, 1000, 5 * 31) << testing::PrintToString(order);
}

// 10,000 layers with 4 redundant slots: 40,000 draws among 4 experts, 10,000 +- sqrt(40000 * 1/4 * 3/4) = 87 each.
// Every slot holds every expert as often: slot 0 2,500 +- 43 times.
TEST(RandomPlacement, DrawsRedundantExpertsUniformly) {
  const PlacementShape shape{.layers = 10000, .experts = 4, .slots = 8, .ranks = 2};
  const Placement placement = PlanOnce("random {}", shape, {}).value();
  std::vector<int> replicas(4), in_slot_0(4);
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int expert : Phy2Log(placement, layer)) ++replicas[expert];
    ++in_slot_0[Phy2Log(placement, layer)[0]];
  }
  for (int expert = 0; expert < 4; ++expert) {
    EXPECT_NEAR(replicas[expert], 20000, 5 * 87);
    EXPECT_NEAR(in_slot_0[expert], 2500, 5 * 43);
  }
}

TEST(RandomPlacement, DrawsFromItsOwnStreamOnlyForTheLayersAskedFor) {
  const PlacementShape shape{.layers = 2, .experts = 64, .slots = 72, .ranks = 8};
  PlacementPolicyConfig config;
  config.mutable_random();
  const auto policy = NewPlacementPolicy(config, shape).value();
  const auto place = [&](RandomStream* random, const Placement* previous, absl::Span<const Layer> layers) {
    PlacementRequest request;
    request.window = {.rows = 0, .layers = 2, .experts = 64, .tokens = {}};
    request.previous = previous;
    request.layers = layers;
    request.random = random;
    return policy->Place(request).value();
  };
  RandomStream one(1, "placement"), again(1, "placement"), other(2, "placement"), third(1, "placement");
  const Placement first = place(&one, nullptr, {});
  EXPECT_TRUE(first == place(&again, nullptr, {}));
  EXPECT_FALSE(first == place(&other, nullptr, {}));
  EXPECT_FALSE(first == place(&again, nullptr, {}));  // The stream has moved on.
  EXPECT_NE(Phy2Log(first, 0), Phy2Log(first, 1));
  const Layer last[] = {Layer{1}};
  EXPECT_EQ(Phy2Log(place(&third, &first, last), 1), Phy2Log(first, 0));  // The first draws of the stream.
}

}  // namespace
}  // namespace epsim
