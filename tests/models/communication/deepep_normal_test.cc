#include "models/communication/deepep_normal.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTimed[] = R"(
    deepep_normal { sms: 20 }
    timing { deepep_normal { launch: "10 us" nvlink_efficiency: 0.5 network_efficiency: 0.8 sm_bandwidth: "4 GB/s"
                             fill_tokens: 2 } })";

// Two nodes of 8.  Rank 1 has 9 tokens: 5 have an expert on rank 1 itself, 1 on rank 0, 3 on rank 11 and 2 on rank 9,
// its rail peer on the other node; one of these visits both 9 and 11, so 4 cross to the node.
RoutedLayer FromRankOne(const Cluster& cluster) {
  RoutedLayer routed = EmptyLayer(cluster);
  routed.tokens[1] = 9;
  routed.tokens_between[16 + 1] = 5;
  routed.tokens_between[16 + 0] = 1;
  routed.tokens_between[16 + 11] = 3;
  routed.tokens_between[16 + 9] = 2;
  routed.tokens_to_node[2 + 0] = 5;
  routed.tokens_to_node[2 + 1] = 4;
  return routed;
}

// q = 2 * 1024 = 2,048 B, over the network 2,048 + 8 + 8 * 4 = 2,088, rounded up to 2,096; combine 2,048 + 8 + 4 * 4 =
// 2,072, rounded up to 2,080.
TEST(DeepEpNormal, CrossesTheNetworkOnceANodeAndForwardsOverNvlink) {
  const Site site(16, 8, 1024, 64, 4);
  const auto communication = site.Make("deepep_normal {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  EXPECT_TRUE((*communication)->detail().tokens_to_node);
  Exchange exchange;
  (*communication)->Dispatch(FromRankOne(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("1>0 2048", "1>9 8384", "9>11 6144"));
  (*communication)->Combine(FromRankOne(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 2048", "9>1 8320", "11>9 6144"));
}

// fp8 travels: 1,024 + 32 = 1,056 B; over the network 1,056 + 40 = 1,096, rounded up to 1,104.
TEST(DeepEpNormal, DispatchesFp8AndCombinesInBf16) {
  const Site site(16, 8, 1024, 64, 4, FP8);
  const auto communication = site.Make("deepep_normal {}");
  Exchange exchange;
  (*communication)->Dispatch(FromRankOne(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("1>0 1056", "1>9 4416", "9>11 3168"));
  EXPECT_TRUE((*communication)->footprint().quantised_dispatch);
  (*communication)->Combine(FromRankOne(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 2048", "9>1 8320", "11>9 6144"));
}

TEST(DeepEpNormal, SendsBf16WhereItCannotSendTheFormat) {
  Site site(16, 8, 1024, 64, 4, MXFP8);
  site.setup.precision.set_combine(FP8);
  const auto communication = site.Make("deepep_normal {}");
  EXPECT_FALSE((*communication)->footprint().quantised_dispatch);
  EXPECT_THAT(
      (*communication)->notes(),
      ::testing::IsSupersetOf({"deepep_normal: precision.dispatch: MXFP8 is not taken by its kernels; BF16 travels",
                               "deepep_normal: precision.combine: FP8 is not taken by its kernels; BF16 travels"}));
  Exchange exchange;
  (*communication)->Dispatch(FromRankOne(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("1>0 2048", "1>9 8384", "9>11 6144"));
}

// One SM takes 2,048 B / 4 GB/s = 0.512 us for a copy; rank 1 has 11 copies of 9 tokens.  20 SMs are 10 channels, each
// with 9 / 10 tokens (fewer than the 2 that fill it): fill 0.9 * 11 / 9 * 0.512 = 0.5632 us.  Busy: rank 1 sends 11,
// 11 * 0.512 / 20 = 0.2816 us; rank 11 receives 3, 0.0768 us; and the 2 us of the way.
TEST(DeepEpNormal, SmsCopyAndChannelsFill) {
  const Site site(16, 8, 1024, 64, 4);
  const auto communication = site.Make(kTimed);
  ASSERT_TRUE(communication.ok()) << communication.status();
  Exchange exchange;
  (*communication)->Dispatch(FromRankOne(site.cluster), &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 10.5632);
  EXPECT_DOUBLE_EQ(Us(exchange.busy[1]), 2.2816);
  EXPECT_DOUBLE_EQ(Us(exchange.busy[11]), 2.0768);
  EXPECT_EQ(exchange.busy[2], Duration{});
  EXPECT_EQ(exchange.traffic.efficiency.node, 0.5);
  EXPECT_EQ(exchange.traffic.efficiency.network, 0.8);
}

// With 900 tokens a channel has 90, of which 2 fill it: fill 2 * 1 copy * 0.512 = 1.024 us.
TEST(DeepEpNormal, FillIsBounded) {
  const Site site(8, 8, 1024, 64, 4);
  const auto communication = site.Make(kTimed);
  RoutedLayer routed = EmptyLayer(site.cluster);
  routed.tokens[0] = 900;
  routed.tokens_between[1] = 900;
  Exchange exchange;
  (*communication)->Dispatch(routed, &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 11.024);
  EXPECT_FALSE((*communication)->detail().tokens_to_node);
}

// 24 SMs, 8 ranks on one node, hidden 7168: token 2 * 7168 + 8 + 1024 + 512 + 512 = 16,392 B;
//   12 * 8 * (4 * 5 + 256 * 16,392) = 96 * 4,196,372 = 402,851,712, a multiple of 128.
// 2 nodes: NVLink 12 * 8 * (4 * 7 + 288 * 16,392) = 96 * 4,720,924 = 453,208,704, a multiple of 128;
//   network 12 * 2 * (144 + 280 * 16,408) + 2^20 = 24 * 4,594,384 + 1,048,576 = 111,313,792, a multiple of 128.
TEST(DeepEpNormal, BuffersAreThoseOfDeepEp) {
  EXPECT_EQ(DeepEpNormalBuffers(7168, 24, 1, 8).count(), 402'851'712);
  EXPECT_EQ(DeepEpNormalBuffers(7168, 24, 2, 8).count(), 453'208'704 + 111'313'792);
}

TEST(DeepEpNormal, HoldsItsSms) {
  EXPECT_EQ((*Site(8, 8, 1024, 64, 4).Make("deepep_normal {}"))->footprint().sms, 24);
  EXPECT_EQ((*Site(8, 8, 1024, 64, 4).Make("deepep_normal { sms: 12 }"))->footprint().sms, 12);
}

TEST(DeepEpNormal, InfeasibleSaysWhatWouldDo) {
  EXPECT_EQ(Site(6, 6, 1024, 96, 4).Problem("deepep_normal {}"),
            "communication.deepep_normal: 6 ranks on one node; 2, 4 or 8 would do, or 2, 4, 8 or 16 nodes of 8");
  EXPECT_EQ(Site(24, 8, 1024, 96, 4).Problem("deepep_normal {}"),
            "communication.deepep_normal: 24 ranks on 3 nodes of 8; 2, 4, 8 or 16 nodes of 8 would do, or 2, 4 or 8 "
            "ranks on one");
  EXPECT_EQ(Site(8, 4, 1024, 96, 4).Problem("deepep_normal {}"),
            "communication.deepep_normal: 8 ranks on 2 nodes of 4; 2, 4, 8 or 16 nodes of 8 would do, or 2, 4 or 8 "
            "ranks on one");
  EXPECT_EQ(Site(8, 8, 1024, 60, 4).Problem("deepep_normal {}"),
            "communication.deepep_normal: 8 ranks do not divide 60 experts; a divisor of 60 would do, or "
            "nvlink_one_sided or allgather_reducescatter");
  EXPECT_EQ(Site(8, 8, 1024, 64, 4).Problem("deepep_normal { sms: 7 }"),
            "communication.deepep_normal: sms: 7 is odd, and a channel takes two; 6 or 8 would do");
  EXPECT_EQ(Site(8, 8, 1024, 64, 4).Problem("deepep_normal { sms: 102 }"),
            "communication.deepep_normal: sms: 102 is more than the 100 of the GPU");
  EXPECT_THAT(Site(*FindPlatform("l40s"), 8, 1024, 64, 4).Problem("deepep_normal {}"), HasSubstr("has none; "));
}

TEST(DeepEpNormal, TakesALayerInOneExchange) {
  const Site site(8, 8, 1024, 64, 4);
  const auto communication = site.Make("deepep_normal {}");
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 1 << 20, .chunks = 1}).ok());
  EXPECT_THAT(std::string((*communication)->Admit({.max_tokens_per_rank = 8, .chunks = 3}).message()),
              HasSubstr("deepep_normal: 3 chunks a layer"));
}

}  // namespace
}  // namespace epsim
