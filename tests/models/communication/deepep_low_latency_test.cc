#include "models/communication/deepep_low_latency.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two nodes of 2.  Rank 0 has 4 tokens with 3 experts each: 2 on itself, 6 on rank 1, 4 on rank 3.
RoutedLayer FromRankZero(const Cluster& cluster) {
  RoutedLayer routed = EmptyLayer(cluster);
  routed.tokens[0] = 4;
  routed.pairs_between[0] = 2;
  routed.pairs_between[1] = 6;
  routed.pairs_between[3] = 4;
  return routed;
}

// q = 2 * 2048 = 4,096 B and a header of 16 B.
TEST(DeepEpLowLatency, SendsACopyForEveryExpert) {
  const Site site(4, 2, 2048, 32, 3);
  const auto communication = site.Make("deepep_low_latency {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  EXPECT_TRUE((*communication)->detail().pairs_between);
  Exchange exchange;
  (*communication)->Dispatch(FromRankZero(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 24672", "0>3 16448"));
  EXPECT_EQ(exchange.traffic.way, Way::kFastest);
  (*communication)->Combine(FromRankZero(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("1>0 24576", "3>0 16384"));
}

TEST(DeepEpLowLatency, RdmaOnlyTakesTheNicsInsideANode) {
  const Site site(4, 2, 2048, 32, 3);
  Exchange exchange;
  (*site.Make("deepep_low_latency { rdma_only: true }"))->Dispatch(FromRankZero(site.cluster), &exchange);
  EXPECT_EQ(exchange.traffic.way, Way::kNetwork);
}

// fp8: 2,048 + 4 * 16 = 2,112 B and 16; NVFP4 combine: 1,024 + 128 = 1,152 B.
TEST(DeepEpLowLatency, TakesQuantisedTokensAndResults) {
  Site site(4, 2, 2048, 32, 3, FP8);
  site.setup.precision.set_combine(NVFP4);
  const auto communication = site.Make("deepep_low_latency {}");
  Exchange exchange;
  (*communication)->Dispatch(FromRankZero(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 12768", "0>3 8512"));
  (*communication)->Combine(FromRankZero(site.cluster), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("1>0 6912", "3>0 4608"));
}

// Combine: 12 copies of 4,096 B at 40 GB/s for rank 0, 1.2288 us, and the 2 us of the way; rank 1 sends 6 of them.
// Dispatch has no such limit.
TEST(DeepEpLowLatency, KernelsCopyWhatTheyKeepAsWell) {
  const Site site(4, 2, 2048, 32, 3);
  const auto communication = site.Make(R"(
      deepep_low_latency {}
      timing { deepep_low_latency { launch: "9 us" floor: "14 us" combine_copy_bandwidth: "40 GB/s" } })");
  ASSERT_TRUE(communication.ok()) << communication.status();
  Exchange exchange;
  (*communication)->Combine(FromRankZero(site.cluster), &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 9);
  EXPECT_DOUBLE_EQ(Us(exchange.floor), 14);
  EXPECT_DOUBLE_EQ(Us(exchange.busy[0]), 3.2288);
  EXPECT_DOUBLE_EQ(Us(exchange.busy[1]), 2.6144);
  (*communication)->Dispatch(FromRankZero(site.cluster), &exchange);
  EXPECT_EQ(exchange.busy[0], Duration{});
}

// 128 tokens, hidden 7168, 256 slots: messages of 16 + 14,336 = 14,352 B and 224 + 14,336 = 14,560 B;
//   2 * (256 * 128 * 14,560 + 256 * 128 * 14,560 + 1,024) = 1,908,410,368.
TEST(DeepEpLowLatency, BuffersAreThoseOfDeepEp) {
  EXPECT_EQ(DeepEpLowLatencyBuffers(7168, 256, 128).count(), 1'908'410'368);
}

TEST(DeepEpLowLatency, AdmitsWhatItsBuffersTake) {
  const Site site(4, 2, 2048, 32, 3);
  const auto by_default = site.Make("deepep_low_latency {}");
  EXPECT_TRUE((*by_default)->Admit({.max_tokens_per_rank = 128}).ok());
  EXPECT_EQ(std::string((*by_default)->Admit({.max_tokens_per_rank = 129}).message()),
            "communication.deepep_low_latency: 129 tokens of one rank in one pass, and its buffers take 128; a higher "
            "max_tokens_per_rank, smaller steps or deepep_normal would do");
  EXPECT_THAT(std::string((*by_default)->Admit({.max_tokens_per_rank = 1, .chunks = 2}).message()),
              HasSubstr("2 chunks a layer"));
  const auto larger = site.Make("deepep_low_latency { max_tokens_per_rank: 256 }");
  EXPECT_TRUE((*larger)->Admit({.max_tokens_per_rank = 256}).ok());
}

TEST(DeepEpLowLatency, InfeasibleSaysWhatWouldDo) {
  EXPECT_EQ(
      Site(4, 2, 2880, 32, 3).Problem("deepep_low_latency {}"),
      "communication.deepep_low_latency: its kernels are not built for hidden 2880; 2048, 2560, 3072, 3584, 4096, "
      "5120, 6144, 7168, 8192 would do, or deepep_normal");
  EXPECT_EQ(Site(4, 2, 2048, 32, 12).Problem("deepep_low_latency {}"),
            "communication.deepep_low_latency: 12 experts a token; at most 11 would do, or deepep_normal");
  EXPECT_THAT(Site(*FindPlatform("l40s"), 8, 2048, 64, 4).Problem("deepep_low_latency {}"),
              HasSubstr("no NVLink; rdma_only, "));
  EXPECT_EQ(Site(*FindPlatform("l40s"), 8, 2048, 64, 4).Problem("deepep_low_latency { rdma_only: true }"), "");
  EXPECT_THAT(Site(*FindPlatform("rtx-4090"), 4, 2048, 64, 4).Problem("deepep_low_latency { rdma_only: true }"),
              HasSubstr("the platform has no NICs"));
}

}  // namespace
}  // namespace epsim
