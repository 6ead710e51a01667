#include "models/communication/nvlink_two_sided.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kTimed[] = R"(nvlink_two_sided {} timing { nvlink_two_sided {
    launch: "10 us" nvlink_efficiency: 0.5 copy_time: "10 ns" prepare: "12 us" prepare_per_token: "100 ns" } })";

RoutedLayer Example() {
  RoutedLayer routed;
  routed.tokens_between = {5, 3, 2, 7};
  routed.tokens = {8, 9};
  return routed;
}

TEST(NvlinkTwoSided, SendsOneCopyARankWithItsRouting) {
  const Site site(2, 2, 1024, 8, 2, FP8);
  Exchange exchange;
  const auto communication = site.Make("nvlink_two_sided {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  (*communication)->Dispatch(Example(), &exchange);  // 1,056 + 16 B.
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 3216", "1>0 2144"));
  (*communication)->Combine(Example(), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 4096", "1>0 6144"));
}

// Prepare 12 us + 9 tokens * 0.1 us = 12.9 us, and 10 us.
TEST(NvlinkTwoSided, PreparesBeforeDispatchAlone) {
  const Site site(2, 2, 1024, 8, 2);
  Exchange exchange;
  const auto communication = site.Make(kTimed);
  (*communication)->Dispatch(Example(), &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.prepare), 12.9);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 22.9);
  (*communication)->Combine(Example(), &exchange);
  EXPECT_EQ(exchange.prepare, Duration{});
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 10);
}

// A copy of 2,048 + 16 B takes 2,064 B / 50 GB/s = 41.28 ns and 10 ns, which is 2,064 / 51.28 ns / 100 GB/s = 0.40250
// of the port; combine 2,048 / 50 + 20 = 60.96 ns, 0.33596.
TEST(NvlinkTwoSided, EveryCopyTakesTimeBesidesItsBytes) {
  const Site site(2, 2, 1024, 8, 2);
  Exchange exchange;
  const auto communication = site.Make(kTimed);
  (*communication)->Dispatch(Example(), &exchange);
  EXPECT_NEAR(exchange.traffic.efficiency.node, 20.64 / 51.28, 1e-12);
  (*communication)->Combine(Example(), &exchange);
  EXPECT_NEAR(exchange.traffic.efficiency.node, 20.48 / 60.96, 1e-12);
}

// 100 SMs, 16 ranks: 2 * 2 blocks a channel, 50 / 4 = 12 channels: 48 SMs, 16 * 12 MiB.
TEST(NvlinkTwoSided, ChannelsTakeHalfTheGpu) {
  const auto communication = Site(16, 16, 1024, 64, 2).Make("nvlink_two_sided {}");
  EXPECT_EQ((*communication)->footprint().sms, 48);
  EXPECT_EQ((*communication)->footprint().buffers.count(), int64_t{16} * 12 << 20);
  EXPECT_TRUE((*communication)->footprint().statistics_ride_along);
  EXPECT_TRUE((*communication)->Admit({.max_tokens_per_rank = 1 << 20, .chunks = 9}).ok());
}

TEST(NvlinkTwoSided, InfeasibleSaysWhatWouldDo) {
  EXPECT_THAT(Site(16, 8, 1024, 64, 8).Problem("nvlink_two_sided {}"), HasSubstr("2 NVLink domains; at most 8, "));
  EXPECT_EQ(Site(8, 8, 1024, 60, 8).Problem("nvlink_two_sided {}"),
            "communication.nvlink_two_sided: 8 ranks do not divide 60 experts; a divisor of 60 would do, or "
            "nvlink_one_sided or allgather_reducescatter");
}

}  // namespace
}  // namespace epsim
