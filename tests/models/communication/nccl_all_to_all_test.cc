#include "models/communication/nccl_all_to_all.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/communication/nccl_collective.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Rank 0 has 2 pairs on itself and 6 on rank 1, rank 1 has 3 on rank 0.  fp8: 1,056 B, back in bf16: 2,048 B.
TEST(NcclAllToAll, SendsACopyForEveryExpert) {
  const Site site(2, 2, 1024, 8, 2, FP8);
  const auto communication = site.Make("nccl_all_to_all {}");
  ASSERT_TRUE(communication.ok()) << communication.status();
  EXPECT_TRUE((*communication)->detail().pairs_between);
  RoutedLayer routed = EmptyLayer(site.cluster);
  routed.pairs_between = {2, 6, 3, 0};
  Exchange exchange;
  (*communication)->Dispatch(routed, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 6336", "1>0 3168"));
  (*communication)->Combine(routed, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 6144", "1>0 12288"));
}

// Counts of 4 slots, 8 B each, go to the other rank first: launch 4 + 1 us, 2 hops and 32 B at 1 GB/s: 7.032 us.
TEST(NcclAllToAll, ExchangesCountsBeforeDispatch) {
  const Site site(2, 2, 1024, 8, 2);
  const auto communication = site.Make(R"(nccl_all_to_all {} timing { nccl {
      launch: "4 us" hop: "1 us" low_latency_bandwidth: "1 GB/s" } })");
  ASSERT_TRUE(communication.ok()) << communication.status();
  RoutedLayer routed = EmptyLayer(site.cluster);
  routed.pairs_between = {0, 1, 1, 0};
  Exchange exchange;
  (*communication)->Dispatch(routed, &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.prepare), 7.032);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 7.032 + 6);
  (*communication)->Combine(routed, &exchange);
  EXPECT_EQ(exchange.prepare, Duration{});
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 6);
}

// 64 tokens of 2 rows of 1,056 + 2,048 B, going and coming: 794,624 B; 32 channels of 4 MiB for one peer.
TEST(NcclAllToAll, HoldsItsRows) {
  const auto communication = Site(2, 2, 1024, 8, 2, FP8).Make("nccl_all_to_all {}");
  EXPECT_EQ((*communication)->footprint().buffers.count(), 794'624 + (int64_t{32} * 4 << 20));
}

}  // namespace
}  // namespace epsim
