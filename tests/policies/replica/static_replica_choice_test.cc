#include "policies/replica/static_replica_choice.h"

#include <map>
#include <set>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;

// `layers` layers with the same experts in the same slots.
Placement Repeat(PlacementShape shape, int layers, const std::vector<int>& experts,
                 const std::vector<int32_t>& order = {}) {
  shape.layers = layers;
  std::vector<LogicalExpert> expert_of_slot;
  std::vector<int32_t> replica_order;
  for (int layer = 0; layer < layers; ++layer) {
    for (int expert : experts) expert_of_slot.push_back(LogicalExpert(expert));
    replica_order.insert(replica_order.end(), order.begin(), order.end());
  }
  return Placement(shape, expert_of_slot, replica_order);
}

ReplicaTable Choose(const Placement& placement, uint64_t seed = 1) {
  RandomStream random(seed, "replica");
  return NewStaticReplicaChoice()->Choose(placement, &random);
}

// The slots that the source ranks use for `expert`.
std::vector<int> SlotsOf(const ReplicaTable& table, int expert, int layer = 0) {
  std::vector<int> slots;
  for (int rank = 0; rank < table.ranks; ++rank) slots.push_back(table.of(Layer(layer), Rank(rank))[expert]);
  return slots;
}

TEST(StaticReplicaChoice, UsesTheOnlyReplicaAndDrawsNothing) {
  const PlacementShape shape{.experts = 4, .slots = 4, .ranks = 4, .nodes = 2};
  RandomStream random(1, "replica"), untouched(1, "replica");
  const ReplicaTable table = NewStaticReplicaChoice()->Choose(Repeat(shape, 3, {2, 0, 3, 1}), &random);
  for (int layer = 0; layer < 3; ++layer) {
    for (int rank = 0; rank < 4; ++rank) EXPECT_THAT(table.of(Layer(layer), Rank(rank)), ElementsAre(1, 3, 0, 2));
  }
  EXPECT_EQ(random.Next(), untouched.Next());
}

// Expert 0 lies twice on rank 0: rank 0 takes the one that comes first in log2phy, which is slot 1 when told so.
TEST(StaticReplicaChoice, PrefersTheFirstReplicaOnTheSameRank) {
  const PlacementShape shape{.experts = 2, .slots = 4, .ranks = 2};
  EXPECT_EQ(SlotsOf(Choose(Repeat(shape, 1, {0, 0, 0, 1})), 0), (std::vector<int>{0, 2}));
  EXPECT_EQ(SlotsOf(Choose(Repeat(shape, 1, {0, 0, 0, 1}, {2, 0, 1, 0})), 0), (std::vector<int>{1, 2}));
}

// Expert 0 on ranks 0 and 2 of nodes {0, 1} and {2, 3}: each node keeps to its own, whatever the draw.
TEST(StaticReplicaChoice, PrefersTheSameNodeBeforeOthers) {
  const PlacementShape shape{.experts = 3, .slots = 4, .ranks = 4, .nodes = 2};
  for (uint64_t seed = 0; seed < 20; ++seed) {
    EXPECT_EQ(SlotsOf(Choose(Repeat(shape, 1, {0, 1, 0, 2}), seed), 0), (std::vector<int>{0, 0, 2, 2}));
  }
}

// One node of 8 ranks, expert 0 on ranks 0, 1, 2: 5 ranks share 3 replicas, so 2 + 2 + 1; each replica is the one that
// serves 1 in a third of the layers, and each rank meets each replica in a third: 3000 layers, sigma = 26, so 1000 +- 5
// sigma.
TEST(StaticReplicaChoice, DealsTheReplicasOfANodeFairly) {
  const PlacementShape shape{.experts = 6, .slots = 8, .ranks = 8};
  const ReplicaTable table = Choose(Repeat(shape, 3000, {0, 0, 0, 1, 2, 3, 4, 5}));
  std::map<int, int> serves_one;
  std::map<std::pair<int, int>, int> meets;
  for (int layer = 0; layer < 3000; ++layer) {
    const std::vector<int> slots = SlotsOf(table, 0, layer);
    ASSERT_THAT(std::vector<int>(slots.begin(), slots.begin() + 3), ElementsAre(0, 1, 2));
    std::map<int, int> ranks_of;
    for (int rank = 3; rank < 8; ++rank) ++ranks_of[slots[rank]], ++meets[{rank, slots[rank]}];
    ASSERT_EQ(ranks_of.size(), 3u);
    for (const auto& [slot, ranks] : ranks_of) {
      ASSERT_TRUE(ranks == 1 || ranks == 2);
      serves_one[slot] += ranks == 1;
    }
  }
  for (int slot = 0; slot < 3; ++slot) {
    EXPECT_NEAR(serves_one[slot], 1000, 130);
    for (int rank = 3; rank < 8; ++rank) EXPECT_NEAR((meets[{rank, slot}]), 1000, 130) << rank << " " << slot;
  }
}

// 4 nodes of 2 ranks, expert 0 on ranks 0 and 2 only.  Ranks 1 and 3 use their node's; the 4 ranks of nodes 2 and 3
// are dealt 2 and 2, whatever nodes 0 and 1 use.
TEST(StaticReplicaChoice, DealsAllReplicasFairlyToTheNodesThatHaveNone) {
  const PlacementShape shape{.experts = 7, .slots = 8, .ranks = 8, .nodes = 4};
  std::set<std::vector<int>> deals;
  for (uint64_t seed = 0; seed < 200; ++seed) {
    const std::vector<int> slots = SlotsOf(Choose(Repeat(shape, 1, {0, 1, 0, 2, 3, 4, 5, 6}), seed), 0);
    ASSERT_THAT(std::vector<int>(slots.begin(), slots.begin() + 4), ElementsAre(0, 0, 2, 2));
    const std::vector<int> far(slots.begin() + 4, slots.end());
    ASSERT_THAT(far, testing::UnorderedElementsAre(0, 0, 2, 2));
    deals.insert(far);
  }
  EXPECT_EQ(deals.size(), 6u);  // All 4! / (2! 2!) of them.
}

// More replicas than ranks that need one: nobody shares.  Expert 0 has 5 replicas on node 0 (ranks 0 and 1) for the 2
// ranks of node 1.
TEST(StaticReplicaChoice, DealsDifferentReplicasWhileTheyLast) {
  const PlacementShape shape{.experts = 8, .slots = 12, .ranks = 4, .nodes = 2};
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::vector<int> slots = SlotsOf(Choose(Repeat(shape, 1, {0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7}), seed), 0);
    EXPECT_LT(slots[2], 5);
    EXPECT_LT(slots[3], 5);
    EXPECT_NE(slots[2], slots[3]);
  }
}

// Drawn layer by layer and expert by expert: further layers, or other later experts, leave what was drawn before.
TEST(StaticReplicaChoice, DrawsLayerMajorExpertMinor) {
  const PlacementShape shape{.experts = 2, .slots = 8, .ranks = 8};
  const std::vector<int> experts = {0, 0, 0, 1, 1, 1, 1, 1};
  const ReplicaTable one = Choose(Repeat(shape, 1, experts)), two = Choose(Repeat(shape, 2, experts));
  EXPECT_EQ(one.slot, std::vector<uint16_t>(two.slot.begin(), two.slot.begin() + 16));
  const PlacementShape more{.experts = 3, .slots = 8, .ranks = 8};
  EXPECT_EQ(SlotsOf(Choose(Repeat(more, 1, {0, 0, 0, 1, 1, 2, 2, 1})), 0), SlotsOf(one, 0));
}

TEST(StaticReplicaChoiceDeathTest, NeedsNodesOfEqualSize) {
  const PlacementShape shape{.experts = 3, .slots = 3, .ranks = 3, .nodes = 2};
  EXPECT_DEATH(Choose(Repeat(shape, 1, {0, 1, 2})), "shape.ranks % shape.nodes == 0");
}

}  // namespace
}  // namespace epsim
