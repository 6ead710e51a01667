#include "models/communication/nccl_collective.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/communication/site.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// NVLink of 100 GB/s: 50 GB/s for the simple protocol, 40 GB/s for its channels together: a byte takes 25 ps.
constexpr char kTiming[] = R"(nccl {
    launch: "4 us" hop: "1 us" low_latency_bandwidth: "10 GB/s" link_efficiency: 0.5 network_efficiency: 0.8
    channel_bandwidth: "2 GB/s" channels: 20 window: "1 MB" nvls_efficiency: 0.8 socket_bandwidth: "5 GB/s"
    spread_loss: 0.25 })";

NcclCollective Make(const Cluster& cluster) {
  LibraryTiming timing;
  EXPECT_TRUE(ParseTextProto(kTiming, "timing", &timing).ok());
  std::vector<std::string> notes;
  auto nccl = NcclCollective::Create(cluster, timing, &notes);
  EXPECT_TRUE(nccl.ok()) << nccl.status();
  return *std::move(nccl);
}

// All 100 B but its own come to each rank; all but what it keeps leave it.
TEST(NcclCollective, RingsPassOnWhatTheNextHasNot) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).AllGather({10, 20, 30, 40}, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 80", "1>2 70", "2>3 60", "3>0 90"));
  Make(site.cluster).ReduceScatter({10, 20, 30, 40}, &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 90", "1>2 80", "2>3 70", "3>0 60"));
  Make(site.cluster).AllReduce(Bytes(100), &exchange);
  EXPECT_THAT(Entries(exchange.traffic), ElementsAre("0>1 150", "1>2 150", "2>3 150", "3>0 150"));
}

// Two rings with half of the bytes: 0, 1, 3, 2 and 1, 0, 2, 3.  Each crosses between GPUs of one rail.
TEST(NcclCollective, AsManyRingsAsGpusOfANodeCrossNodes) {
  const Site site(4, 2, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).AllGather({10, 20, 30, 40}, &exchange);
  EXPECT_THAT(Entries(exchange.traffic),
              ElementsAre("0>1 40", "0>2 35", "1>0 45", "1>3 30", "2>0 45", "2>3 30", "3>1 40", "3>2 35"));
}

// 1 MB from each of 4: before the first byte 4 + 1 us of latency, 3 + 2 hops of 1 us and the fill of 3 * 25 us: 85 us;
// then 3 MB at 25 ps, 75 us.  By the low-latency protocol it would be 8 + 300 us.
TEST(NcclCollective, LargeRingsTakeTheSimpleProtocol) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllGather, Bytes(4'000'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(exchange.launch), 84);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.4);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 160);
  Make(site.cluster).Run(NcclOperation::kReduceScatter, Bytes(4'000'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 160);
}

// 100 B from each of 4: 5 us + 3 hops + 300 B at 100 ps = 8.03 us; by the simple protocol 10.015 us.
TEST(NcclCollective, SmallRingsTakeTheLowLatencyProtocol) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllGather, Bytes(400), &exchange);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.1);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 8.03);
}

// Two nodes of 2, NICs of 10 GB/s and 2 us, 1 MB from each.  Half of the bytes of a step over the NIC: 500 kB at
// 125 ps, 62.5 us, longer than half of them over NVLink.  4 + 2 us, 3 + 2 hops, 2 us more between nodes, fill 75 us:
// 88 us; and 3 * 62.5 = 187.5 us.
TEST(NcclCollective, BetweenNodesTheNicsCount) {
  const Site site(4, 2, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllGather, Bytes(4'000'000), &exchange);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.network, 0.8);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 275.5);
}

// 16 MB on 4 ranks.  In the switch: 5 us + 6 hops + fill of 6 * 25 us = 161 us, and 16 MB at 25 / 0.8 ps = 500 us.  By
// rings: 163 us and 6 * 100 us.  Every port carries 16 MB * 5 / 4 in those 500 us: 0.4 of it.
TEST(NcclCollective, NvswitchReducesLargeBuffers) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).AllReduce(Bytes(16'000'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 661);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.4);
  for (int rank = 0; rank < 4; ++rank) {
    int64_t sent = 0, received = 0;
    for (int other = 0; other < 4; ++other) {
      sent += exchange.traffic.bytes[rank * 4 + other];
      received += exchange.traffic.bytes[other * 4 + rank];
    }
    EXPECT_EQ(sent, 20'000'000);
    EXPECT_EQ(received, 20'000'000);
  }
  // Below 16 MB by rings: 5 + 6 + 2 us, 6 * 25 us of fill, 6 * 3.9 MB at 25 ps.
  Make(site.cluster).AllReduce(Bytes(15'600'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 13 + 150 + 585);
}

TEST(NcclCollective, OlderSwitchesDoNotReduce) {
  PlatformSpec platform = *FindPlatform("a100-sxm");
  platform.mutable_gpu()->set_compute_capability(80);
  const Site site(platform, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).AllReduce(Bytes(400'000'000), &exchange);
  EXPECT_THAT(Entries(exchange.traffic),
              ElementsAre("0>1 600000000", "1>2 600000000", "2>3 600000000", "3>0 600000000"));
}

// 1 MB to each of 3 peers: latency 5 + 2.5 hops, 5 us again, fill 2 * 1 MB at 12.5 ps = 25 us: 37.5 us.  Then the
// larger of 3 MB at 20 * 1.25 ps, 75 us, and 4 MB, its own part with them, at 25 ps: 100 us.
TEST(NcclCollective, AllToAllIsBoundByItsChannels) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllToAll, Bytes(4'000'000), &exchange);
  EXPECT_DOUBLE_EQ(exchange.traffic.efficiency.node, 0.4);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 137.5);
}

// 1,000 B to each of 3 peers: 5 us + 2.5 hops + 3,000 B at 100 ps.
TEST(NcclCollective, SmallMessagesTakeTheLowLatencyProtocol) {
  const Site site(4, 4, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllToAll, Bytes(4'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 7.8);
}

// 8 GPUs of a host on PCIe of 40 GB/s, 1 us.  All-to-all of 1 MB to each of 7: 16 MB from half to half at 5 GB/s, 3,200
// us, after 5 + (2 + 6 / 4) hops, 5 us, and a fill of 6 * 12.5 us: 88.5 us.  Rings do not care: 5 + 7 us, 7 steps of
// 1 MB at 50 ps and of half a window at 25 ps.
TEST(NcclCollective, OnPcieBytesPassBetweenSockets) {
  PlatformSpec platform;
  ASSERT_TRUE(ParseTextProto(R"(
      gpu { name: "GPU" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "1 PFLOP/s" compute_capability: 120 }
      gpus_per_node: 8 pcie { bandwidth: "40 GB/s" latency: "1 us" })",
                             "platform", &platform)
                  .ok());
  const Site site(platform, 8, 1024, 8, 2);
  Exchange exchange;
  Make(site.cluster).Run(NcclOperation::kAllToAll, Bytes(8'000'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 3288.5);
  Make(site.cluster).Run(NcclOperation::kAllGather, Bytes(8'000'000), &exchange);
  EXPECT_DOUBLE_EQ(Us(LoneExchangeTime(site.cluster, exchange)), 12 + 7 * 50 + 7 * 12.5);
}

TEST(NcclCollective, OneRankHasNothingToDo) {
  const Site site(1, 1, 1024, 8, 2);
  Exchange exchange;
  for (NcclOperation operation : {NcclOperation::kAllGather, NcclOperation::kReduceScatter, NcclOperation::kAllReduce,
                                  NcclOperation::kAllToAll}) {
    Make(site.cluster).Run(operation, Bytes(1 << 20), &exchange);
    EXPECT_EQ(LoneExchangeTime(site.cluster, exchange), Duration{});
  }
}

TEST(NcclCollective, ChannelsHoldSmsAndBuffers) {
  const Site site(4, 4, 1024, 8, 2);
  EXPECT_EQ(Make(site.cluster).sms(), 20);
  EXPECT_EQ(Make(site.cluster).buffers(NcclOperation::kAllGather).count(), int64_t{20} * 4 << 20);
  EXPECT_EQ(Make(site.cluster).buffers(NcclOperation::kAllToAll).count(), int64_t{20} * 3 * 4 << 20);
}

}  // namespace
}  // namespace epsim
