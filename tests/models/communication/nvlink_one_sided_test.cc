#include "models/communication/nvlink_one_sided.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Two ranks: rank 0 has 3 tokens for rank 1 and keeps 5, rank 1 has 2 for rank 0.
RoutedLayer Example() {
  RoutedLayer routed;
  routed.tokens_between = {5, 3, 2, 7};
  routed.tokens = {8, 9};
  return routed;
}

// K = 2: 16 B of experts and weights.  NVFP4 of 1,024: 512 + 64 = 576 B.
TEST(NvlinkOneSided, PutsOneCopyARankWithItsRouting) {
  const Site site(2, 2, 1024, 8, 2, NVFP4);
  Exchange exchange;
  const auto communication = site.Make("nvlink_one_sided {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  (*communication)->Dispatch(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 1776", "1>0 1184"));
  (*communication)->Combine(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 4096", "1>0 6144"));
}

TEST(NvlinkOneSided, CombinesInFp8WithoutScales) {
  Site site(2, 2, 1024, 8, 2);
  Exchange exchange;
  (*site.Make("nvlink_one_sided { fp8_combine: true }"))->Combine(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 2048", "1>0 3072"));
  site.setup.precision.set_combine(FP8);
  (*site.Make("nvlink_one_sided {}"))->Combine(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 2048", "1>0 3072"));
}

// 4 ranks, top 2: 2 of 4 are visited, bytes take 1 + 0.2 * (1 - 2 / 4) = 1.1 times as long: 0.55 / 1.1 = 0.5.
TEST(NvlinkOneSided, CopiesOfManySendersMeetAtAPort) {
  const char* timing = R"(nvlink_one_sided {} timing { nvlink_one_sided {
      launch: "10 us" dispatch_floor: "19 us" combine_floor: "32 us" nvlink_efficiency: 0.55 spread_loss: 0.2 } })";
  const Site four(4, 4, 1024, 8, 2), two(2, 2, 1024, 8, 2);
  Exchange exchange;
  (*four.Make(timing))->Dispatch(EmptyLayer(four.cluster), &exchange);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.5);
  EXPECT_DOUBLE_EQ(Us(exchange.floor), 19);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 10);
  (*four.Make(timing))->Combine(EmptyLayer(four.cluster), &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.floor), 32);
  (*two.Make(timing))->Dispatch(EmptyLayer(two.cluster), &exchange);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.55);
}

// 64 ranks, 1,024 tokens, hidden 7168, top 8: 64 * 1,024 * (28,672 + 64) B = 1.754 GiB; 32 ranks 0.877, 8,192 tokens
// on 64 ranks 14.03 GiB.
TEST(NvlinkOneSided, WorkspaceHoldsEveryTokenOfEveryRank) {
  const auto gib = [](int ranks, int tokens) {
    Site site(ranks, ranks, 7168, 256, 8);
    site.setup.max_tokens_per_rank = tokens;
    const auto communication = site.Make("nvlink_one_sided {}");
    EXPECT_TRUE(communication.ok()) << communication.status();
    return static_cast<double>((*communication)->footprint().buffers.count()) / 0x1p30;
  };
  EXPECT_NEAR(gib(32, 1024), 0.88, 0.005);
  EXPECT_NEAR(gib(64, 1024), 1.75, 0.005);
  EXPECT_NEAR(gib(64, 8192), 14.0, 0.05);
}

TEST(NvlinkOneSided, TakesAnyLoad) {
  const Site site(2, 2, 1024, 9, 2);  // 2 ranks do not divide 9 experts.
  const auto communication = site.Make("nvlink_one_sided {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 1 << 20, .chunks = 9}).ok());
  EXPECT_TRUE((*communication)->footprint().statistics_ride_along);
  EXPECT_EQ((*communication)->footprint().sms, 0);
}

TEST(NvlinkOneSided, InfeasibleSaysWhatWouldDo) {
  EXPECT_EQ(Site(16, 8, 1024, 64, 8).Problem("nvlink_one_sided {}"),
            "communication.nvlink_one_sided: 16 ranks lie in 2 NVLink domains; at most 8, one domain, would do, or "
            "deepep_normal, deepep_low_latency or allgather_reducescatter");
  EXPECT_EQ(Site(2, 2, 1024, 64, 9).Problem("nvlink_one_sided {}"),
            "communication.nvlink_one_sided: 9 experts a token; at most 8 would do, or nvlink_two_sided or "
            "allgather_reducescatter");
  EXPECT_EQ(Site(256, 256, 1024, 256, 8).Problem("nvlink_one_sided {}"),
            "communication.nvlink_one_sided: 256 ranks; at most 128 would do, or allgather_reducescatter");
  EXPECT_EQ(Site(*FindPlatform("rtx-pro-6000"), 4, 1024, 64, 8).Problem("nvlink_one_sided {}"),
            "communication.nvlink_one_sided: the platform has no NVLink; nccl_all_to_all or allgather_reducescatter "
            "would do");
}

}  // namespace
}  // namespace epsim
