#include "models/communication/allgather_reducescatter.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

RoutedLayer Tokens(const Cluster& cluster, std::vector<int32_t> tokens) {
  RoutedLayer routed = EmptyLayer(cluster);
  routed.tokens = std::move(tokens);
  return routed;
}

// K = 4: a token is 1,056 + 32 = 1,088 B in fp8 with its routing, 2,048 B on the way back.  To rank r come the tokens
// of all others; from rank r go the results of all others.
TEST(AllGatherReduceScatter, MovesAllTokensInARing) {
  const Site site(3, 3, 1024, 9, 4, FP8);
  const auto communication = site.Make("allgather_reducescatter {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  Exchange exchange;
  (*communication)->Dispatch(Tokens(site.cluster, {1, 2, 5}), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 6528", "1>2 3264", "2>0 7616"));
  (*communication)->Combine(Tokens(site.cluster, {1, 2, 5}), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 14336", "1>2 12288", "2>0 6144"));
}

// All count 5 tokens: 10 on every link.
TEST(AllGatherReduceScatter, PadsToTheFullestRank) {
  const Site site(3, 3, 1024, 9, 4, FP8);
  const auto communication = site.Make("allgather_reducescatter { pad_to_max: true }");
  Exchange exchange;
  (*communication)->Dispatch(Tokens(site.cluster, {1, 2, 5}), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 10880", "1>2 10880", "2>0 10880"));
}

// (R - 1) * (q + 8 K) out per token: 4 ranks of 7 tokens, each rank sends 3 * 7 * 1,088 B.
TEST(AllGatherReduceScatter, EveryTokenGoesToAllOthers) {
  const Site site(4, 4, 1024, 8, 4, FP8);
  Exchange exchange;
  (*site.Make("allgather_reducescatter {}"))->Dispatch(Tokens(site.cluster, {7, 7, 7, 7}), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 22848", "1>2 22848", "2>3 22848", "3>0 22848"));
}

// 3 ranks of 64 tokens, 1,088 + 2,048 B: 602,112 B, and 32 channels of 4 MiB.
TEST(AllGatherReduceScatter, HoldsAllTokens) {
  const auto communication = Site(3, 3, 1024, 9, 4, FP8).Make("allgather_reducescatter {}");
  EXPECT_EQ((*communication)->footprint().buffers.count(), 602'112 + (int64_t{32} * 4 << 20));
  EXPECT_EQ((*communication)->footprint().sms, 32);
  EXPECT_FALSE((*communication)->footprint().statistics_ride_along);
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 1 << 20, .chunks = 9}).ok());
}

// An int32 for each of 9 experts and 5 layers: 180 B, of which every rank passes on 2 * 2 thirds.
TEST(AllGatherReduceScatter, StatisticsCostAnAllReduce) {
  const auto communication = Site(3, 3, 1024, 9, 4, FP8).Make("allgather_reducescatter {}");
  Exchange exchange;
  (*communication)->Statistics(5, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 240", "1>2 240", "2>0 240"));
}

}  // namespace
}  // namespace epsim
