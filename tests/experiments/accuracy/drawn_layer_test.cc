#include "experiments/accuracy/drawn_layer.h"

#include <numeric>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::HasSubstr;

LayerSetup SetupOf(const std::string& routing, int ranks, int tokens) {
  return {.routing = routing, .ranks = ranks, .nodes = 1, .tokens_per_rank = tokens, .experts = 256, .top_k = 8};
}

RoutedLayer Draw(const LayerSetup& setup, uint64_t seed = 1) {
  const auto routed = DrawLayer(setup, {}, seed);
  EXPECT_TRUE(routed.ok()) << routed.status();
  return *routed;
}

double DistinctRanks(const LayerSetup& setup) {
  const RoutedLayer routed = Draw(setup);
  return std::accumulate(routed.tokens_between.begin(), routed.tokens_between.end(), 0.0) /
         (setup.ranks * setup.tokens_per_rank);
}

// Of R ranks with m = 256 / R experts each, R (1 - C(256 - m, 8) / C(256, 8)) hold one of a uniform token's 8 experts:
// 5.294 of 8 (4.633 others), 8.000 * ... of 32.  With 4,096 tokens a rank the mean is within 0.02.
TEST(DrawnLayerTest, UniformTokensVisitAsManyRanksAsCombinatoricsSay) {
  for (int ranks : {8, 32}) {
    double missed = 1;
    for (int i = 0; i < 8; ++i) missed *= (256.0 - 256.0 / ranks - i) / (256.0 - i);
    EXPECT_NEAR(DistinctRanks(SetupOf("uniform", ranks, 4096)), ranks * (1 - missed), 0.02) << ranks;
  }
}

// Each token visits min(ranks, 8) ranks, and every rank gets as many of each source.
TEST(DrawnLayerTest, BalancedTokensVisitAllAlike) {
  EXPECT_THAT(Draw(SetupOf("balanced", 8, 5)).tokens_between, Each(5));
  const RoutedLayer routed = Draw(SetupOf("balanced", 32, 64));
  EXPECT_THAT(routed.tokens_between, Each(64 * 8 / 32));
  EXPECT_EQ(routed.pairs, 32 * 64 * 8);
  EXPECT_THAT(Draw(SetupOf("balanced", 4, 16)).tokens_between, Each(16));
}

// With as many groups as ranks a token's 4 groups are 4 ranks; of 32 experts each it misses one with a probability of
// C(96, 8) / C(128, 8) = 0.0927.
TEST(DrawnLayerTest, GroupLimitedTokensStayInTheirGroups) {
  EXPECT_NEAR(DistinctRanks(SetupOf("group_limited_4_of_8", 8, 4096)), 4 * (1 - 0.0927), 0.01);
  const RoutedLayer one = Draw(SetupOf("group_limited_1_of_8", 8, 100));
  EXPECT_EQ(std::accumulate(one.tokens_between.begin(), one.tokens_between.end(), 0), 8 * 100);
}

// On 2 nodes all of the 4 groups are reached, on 8 nodes half of them.
TEST(DrawnLayerTest, GroupsAreNodesWhereThereAreSeveral) {
  for (const auto& [nodes, visited] : {std::pair(2, 2.0), std::pair(8, 4.0)}) {
    LayerSetup setup = SetupOf("group_limited_4_of_8", nodes * 8, 256);
    setup.nodes = nodes;
    const auto routed = DrawLayer(setup, {.tokens_to_node = true}, 1);
    ASSERT_TRUE(routed.ok()) << routed.status();
    const double sum = std::accumulate(routed->tokens_to_node.begin(), routed->tokens_to_node.end(), 0.0);
    // Of 4 nodes with 32 experts each a token misses one with a probability of 0.0927, of 2 with 128 hardly ever.
    EXPECT_NEAR(sum / (setup.ranks * 256.0), nodes == 2 ? visited : visited * (1 - 0.0927), 0.02);
  }
}

TEST(DrawnLayerTest, SeedsDecide) {
  const LayerSetup setup = SetupOf("uniform", 8, 16);
  EXPECT_EQ(Draw(setup, 3).tokens_per_slot, Draw(setup, 3).tokens_per_slot);
  EXPECT_NE(Draw(setup, 3).tokens_per_slot, Draw(setup, 4).tokens_per_slot);
}

TEST(DrawnLayerTest, WhatDoesNotGoTogetherIsNamed) {
  const auto error = [](const LayerSetup& setup) { return std::string(DrawLayer(setup, {}, 1).status().message()); };
  EXPECT_THAT(error(SetupOf("uniform", 7, 1)), HasSubstr("experts: 256 do not divide into 7 ranks"));
  EXPECT_THAT(error(SetupOf("zipf", 8, 1)), HasSubstr("routing: \"zipf\" is not drawn; uniform, balanced"));
  EXPECT_THAT(error(SetupOf("group_limited_9_of_8", 8, 1)), HasSubstr("does not go with"));
  EXPECT_THAT(error(SetupOf("group_limited_1_of_64", 8, 1)), HasSubstr("does not go with top 8 of 256"));
  LayerSetup many = SetupOf("uniform", 8, 1);
  many.top_k = 257;
  EXPECT_THAT(error(many), HasSubstr("top_k: 257 of 256 experts"));
}

}  // namespace
}  // namespace epsim
