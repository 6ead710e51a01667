// The laws of flows, in both models of how they share links.  Links of 1 byte per nanosecond inside a node (routes of
// 5 ns) and 1 byte per 2 ns between nodes (routes of 7 ns), unless a test says otherwise; times in picoseconds.
#include "platforms/network/flow_network.h"

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::SizeIs;

SimTime At(int64_t picoseconds) { return SimTime(Duration(picoseconds)); }

struct Transfer {
  int source, destination;
  int64_t bytes;
};

class FlowNetworkTest : public ::testing::TestWithParam<std::string> {
 protected:
  struct Told {
    int64_t at;  // When the listener was called.
    std::vector<int64_t> finish;
  };

  void SetUp() override { Build(4, 4); }

  void Build(int ranks, int gpus_per_node, const std::string& more = "") {
    PlatformSpec platform;
    ASSERT_TRUE(ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" bf16: "1 TFLOP/s" }
                                  nvlink { bandwidth: "1 GB/s" latency: "5 ns" })" +
                                   (more.empty() ? R"(nic { bandwidth: "500 MB/s" latency: "7 ns" })" : more),
                               "platform", &platform)
                    .ok());
    platform.set_gpus_per_node(gpus_per_node);
    auto cluster = Cluster::Create(platform, ranks);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    network_.reset();
    cluster_ = std::make_unique<Cluster>(*std::move(cluster));
    queue_ = std::make_unique<EventQueue>();
    told_.clear();
    NetworkConfig config;
    ASSERT_TRUE(SetField("network=" + GetParam(), &config).ok());
    auto network = NewNetwork(config, *cluster_, queue_.get());
    if (absl::IsUnimplemented(network.status())) GTEST_SKIP() << network.status();
    ASSERT_TRUE(network.ok()) << network.status();
    network_ = *std::move(network);
  }

  TrafficMatrix Matrix(const std::vector<Transfer>& transfers) const {
    const int ranks = cluster_->ranks();
    TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
    for (const Transfer& t : transfers) traffic.bytes[t.source * ranks + t.destination] += t.bytes;
    return traffic;
  }
  std::vector<SimTime> Times(const std::vector<int64_t>& picoseconds) const {
    std::vector<SimTime> times;
    for (int64_t t : picoseconds) times.push_back(At(t));
    return times;
  }
  PhaseId Start(int stream, const TrafficMatrix& traffic, const std::vector<int64_t>& release) {
    return network_->Start(StreamId(stream), traffic, Times(release),
                           [this](PhaseId phase, absl::Span<const SimTime> finish) {
                             Told told{queue_->now().time_since_epoch().count(), {}};
                             for (SimTime t : finish) told.finish.push_back(t.time_since_epoch().count());
                             told_[phase].push_back(told);
                           });
  }
  PhaseId Start(int stream, const std::vector<Transfer>& transfers) {
    return Start(stream, Matrix(transfers), std::vector<int64_t>(cluster_->ranks()));
  }
  // Runs what is due before `picoseconds`, and stops the clock there.
  void RunUntil(int64_t picoseconds) {
    bool reached = false;
    queue_->Schedule(At(picoseconds), Phase::kComplete, [&reached] { reached = true; });
    while (!reached) queue_->Step();
  }
  void RunAll() {
    while (!queue_->empty()) queue_->Step();
  }
  // The finishes that were told last.
  const std::vector<int64_t>& Finish(PhaseId phase) { return told_[phase].back().finish; }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<EventQueue> queue_;
  std::unique_ptr<Network> network_;
  std::map<PhaseId, std::vector<Told>> told_;
};

// 10 B take 10 ns and 5 ns of way, for the sender as for the receiver; the others only hear that nothing comes.
TEST_P(FlowNetworkTest, OneFlow) {
  const PhaseId phase = Start(0, {{0, 1, 10}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(15'000, 15'000, 5'000, 5'000));
  ASSERT_THAT(told_[phase], SizeIs(1));
  EXPECT_EQ(told_[phase][0].at, 5'000);  // Told at the earliest finish.
}

// Halves of the receiver's link until the smaller is through at 20; the larger has 10 left and all of it: 30.
TEST_P(FlowNetworkTest, TwoFlowsToOneReceiver) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(25'000, 35'000, 35'000, 5'000));
}

// Into 2 come three flows, a third each; so 0 can give 2/3 to 1, more than its own half.  All need 30 ns.
TEST_P(FlowNetworkTest, WhatOneFlowCannotUseAnotherTakes) {
  Build(5, 5);
  const PhaseId phase = Start(0, {{0, 1, 20}, {0, 2, 10}, {3, 2, 10}, {4, 2, 10}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 35'000, 35'000, 35'000, 35'000));
}

// Four flows share the link into 1, four that into 2: a quarter each until the short ones have had their 2 B, at 8.
// Rank 0 has 4 B left for each, and its own link lets it send half to each: 8 + 8 = 16.  Every link alone would be done
// at 12.
TEST_P(FlowNetworkTest, AFlowHeldUpAtItsReceiverLeavesItsSenderIdle) {
  Build(9, 9);
  const PhaseId phase =
      Start(0, {{0, 1, 6}, {0, 2, 6}, {3, 1, 2}, {4, 1, 2}, {5, 1, 2}, {6, 2, 2}, {7, 2, 2}, {8, 2, 2}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(21'000, 21'000, 21'000, 13'000, 13'000, 13'000, 13'000, 13'000, 13'000));
}

// Rank 1 comes at 4 ns, when 6 B of rank 0's are left: halves until 16, then rank 1 alone with 14 B: 30.
TEST_P(FlowNetworkTest, ReleasesAreKept) {
  const PhaseId phase = Start(0, Matrix({{0, 2, 10}, {1, 2, 20}}), {0, 4'000, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(21'000, 35'000, 35'000, 9'000));
}

TEST_P(FlowNetworkTest, NoTokensStillHaveToBeHeard) {
  const PhaseId phase = Start(0, Matrix({}), {0, 300, 100, 200});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(5'300, 5'200, 5'300, 5'300));
}

TEST_P(FlowNetworkTest, OneRankFinishesAtItsRelease) {
  Build(1, 4);
  const PhaseId phase = Start(0, Matrix({{0, 0, 1000}}), {700});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(700));
}

// Two nodes of two: 10 B over the NICs take 20 ns and a way of 7; ranks 1 and 3 hear from the other node after 7.
TEST_P(FlowNetworkTest, BetweenNodes) {
  Build(4, 2);
  const PhaseId phase = Start(0, {{0, 2, 10}, {0, 1, 3}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(27'000, 8'000, 27'000, 7'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNic);
}

// The same inside a node if the library goes over the network all the same.
TEST_P(FlowNetworkTest, OverTheNetworkInsideANode) {
  Build(4, 2);
  TrafficMatrix traffic = Matrix({{0, 1, 10}});
  traffic.way = Way::kNetwork;
  const PhaseId phase = Start(0, traffic, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(27'000, 27'000, 7'000, 7'000));
}

TEST_P(FlowNetworkTest, LimitedByWhatCarriesTheMost) {
  Build(4, 2);
  Start(0, {{0, 2, 10}, {0, 1, 30}});
  RunAll();
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNvlink);
}

// One NIC for both GPUs of a node: 20 B through it take 40 ns.
TEST_P(FlowNetworkTest, SharedNics) {
  Build(4, 2, R"(nic { bandwidth: "500 MB/s" latency: "7 ns" per_node: 1 })");
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 3, 10}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(47'000, 47'000, 47'000, 47'000));
}

// Two nodes, each below a leaf of its own with a quarter of the NICs' bandwidth: 20 B out of node 0 at 1 B per 4 ns.
TEST_P(FlowNetworkTest, Leaves) {
  Build(4, 2,
        R"(nic { bandwidth: "500 MB/s" latency: "7 ns" }
           fabric { leaf { nodes: 1 oversubscription: 4 latency: "2 ns" } })");
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 3, 10}});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(89'000, 89'000, 89'000, 89'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kLeaf);
}

// Two GPUs below one PCIe switch load 10 B each: 20 B through it take 20 ns, and the way 3.  What the others send each
// other over NVLink is not touched.
TEST_P(FlowNetworkTest, LoadsFromTheHostShareTheSwitch) {
  Build(4, 4, R"(pcie { bandwidth: "1 GB/s" latency: "3 ns" gpus_per_switch: 2 })");
  TrafficMatrix traffic = Matrix({{2, 3, 10}});
  traffic.from_host = {10, 10, 0, 0};
  const PhaseId phase = Start(0, traffic, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(23'000, 23'000, 15'000, 15'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kPcieSwitch);
}

// At half the efficiency twice the time: 20 ns inside the node; 80 ns at a quarter between nodes.
TEST_P(FlowNetworkTest, Efficiency) {
  Build(4, 2);
  TrafficMatrix traffic = Matrix({{0, 1, 10}, {0, 2, 10}});
  traffic.efficiency = {.node = 0.5, .network = 0.25};
  const PhaseId phase = Start(0, traffic, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(87'000, 25'000, 87'000, 7'000));
}

// On the way to its NIC, which takes 2 ns a byte, a GPU sends over PCIe at 1 ns a byte and an efficiency of a half: as
// fast.  10 B come in from the network, 20 ns of the PCIe port's time, and 10 B from the host at full efficiency, 10
// ns: they share it equally until the latter is through at 20.  The former has 10 ns left: 30.
TEST_P(FlowNetworkTest, EfficiencyOfTwoLinksOfARoute) {
  Build(4, 2,
        R"(nic { bandwidth: "500 MB/s" latency: "7 ns" over_pcie: true }
           pcie { bandwidth: "1 GB/s" latency: "3 ns" })");
  TrafficMatrix traffic = Matrix({{0, 2, 10}});
  traffic.efficiency = {.node = 0.5, .network = 1};
  const PhaseId phase = Start(0, traffic, {0, 0, 0, 0});
  TrafficMatrix load = Matrix({});
  load.efficiency = {.node = 1, .network = 1};
  load.from_host = {0, 0, 10, 0};
  const PhaseId loads = Start(1, load, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(37'000, 7'000, 37'000, 7'000));
  EXPECT_THAT(Finish(loads), ElementsAre(7'000, 7'000, 23'000, 7'000));
}

// Every flow has the same weight: a third of the link for each, whichever stream it is of.
TEST_P(FlowNetworkTest, StreamsShareByFlows) {
  const PhaseId a = Start(0, {{0, 2, 10}, {1, 2, 10}}), b = Start(1, {{3, 2, 10}});
  RunAll();
  EXPECT_THAT(Finish(a), ElementsAre(35'000, 35'000, 35'000, 5'000));
  EXPECT_THAT(Finish(b), ElementsAre(5'000, 5'000, 35'000, 35'000));
}

// Phase b waits on the link out of 0 and on the one into 1 until a is through at 10; from 2 to 3 it goes at once.
TEST_P(FlowNetworkTest, PhasesOfAStreamFollowEachOtherOnALink) {
  const PhaseId a = Start(0, {{0, 1, 10}}), b = Start(0, {{0, 2, 10}, {3, 1, 10}, {2, 3, 10}});
  RunAll();
  EXPECT_THAT(Finish(a), ElementsAre(15'000, 15'000, 5'000, 5'000));
  EXPECT_THAT(Finish(b), ElementsAre(25'000, 25'000, 25'000, 25'000));
  EXPECT_THAT(told_[b], SizeIs(1));
}

// Phase b waits even for bytes of a that are yet to be released, from 50 to 60.
TEST_P(FlowNetworkTest, NoOvertakingInAStream) {
  const PhaseId a = Start(0, Matrix({{0, 1, 10}}), {50'000, 0, 0, 0});
  const PhaseId b = Start(0, {{3, 1, 10}});
  RunAll();
  EXPECT_EQ(Finish(a)[1], 65'000);
  EXPECT_EQ(Finish(b)[1], 75'000);
}

// A migration has 50 of 100 B left at 50 when a dispatch of 20 B joins: halves until 90, then 30 B alone: 120.  What
// was told of the migration is told again then.
TEST_P(FlowNetworkTest, JoiningInTheMiddleSlowsWhatIsUnderWay) {
  const PhaseId migration = Start(1, {{0, 2, 100}});
  RunUntil(50'000);
  const PhaseId dispatch = Start(0, Matrix({{1, 2, 20}}), {50'000, 50'000, 50'000, 50'000});
  RunAll();
  ASSERT_THAT(told_[migration], SizeIs(2));
  EXPECT_EQ(told_[migration][0].at, 5'000);
  EXPECT_THAT(told_[migration][0].finish, ElementsAre(105'000, 5'000, 105'000, 5'000));
  EXPECT_EQ(told_[migration][1].at, 50'000);
  EXPECT_THAT(Finish(migration), ElementsAre(125'000, 5'000, 125'000, 5'000));
  EXPECT_THAT(Finish(dispatch), ElementsAre(55'000, 95'000, 95'000, 55'000));
}

// A phase on other links changes nothing, and nothing is told again.
TEST_P(FlowNetworkTest, OthersAreNotDisturbed) {
  const PhaseId migration = Start(1, {{0, 2, 100}});
  RunUntil(33'333);
  Start(0, Matrix({{1, 3, 20}}), {33'333, 33'333, 33'333, 33'333});
  RunAll();
  EXPECT_THAT(told_[migration], SizeIs(1));
}

// Rank 1 slips from 50 to 80 ns before it was told: 20 B from 80 to 100.  The next phase's byte goes after them.
TEST_P(FlowNetworkTest, ReviseMovesWhatIsToCome) {
  const PhaseId phase = Start(0, Matrix({{0, 2, 10}, {1, 2, 20}}), {0, 50'000, 0, 0});
  const PhaseId next = Start(0, Matrix({{1, 2, 1}}), {0, 50'000, 0, 0});
  RunUntil(20'000);
  network_->Revise(phase, Times({0, 80'000, 0, 0}));
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(85'000, 105'000, 105'000, 85'000));
  ASSERT_THAT(told_[phase], SizeIs(1));
  EXPECT_EQ(told_[phase][0].at, 85'000);
  EXPECT_THAT(Finish(next), ElementsAre(55'000, 106'000, 106'000, 55'000));
}

TEST_P(FlowNetworkTest, ReviseMayBringAReleaseForward) {
  const PhaseId phase = Start(0, Matrix({{1, 2, 20}}), {0, 50'000, 0, 0});
  RunUntil(20'000);
  network_->Revise(phase, Times({0, 30'000, 0, 0}));
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 55'000, 55'000, 35'000));
  EXPECT_EQ(told_[phase][0].at, 35'000);
}

TEST_P(FlowNetworkTest, BytesAreCountedOnEveryLinkOfTheRoute) {
  Build(4, 2,
        R"(nic { bandwidth: "500 MB/s" latency: "7 ns" over_pcie: true }
           pcie { bandwidth: "1 GB/s" latency: "3 ns" })");
  TrafficMatrix traffic = Matrix({{0, 2, 10}, {0, 1, 3}});
  traffic.from_host = {0, 0, 5, 0};
  Start(0, traffic, {0, 0, 0, 0});
  std::map<std::string, int64_t> bytes;
  for (size_t i = 0; i < cluster_->links().size(); ++i) {
    if (network_->bytes_on_link()[i] > 0) bytes[Name(cluster_->links()[i])] = network_->bytes_on_link()[i];
  }
  EXPECT_THAT(bytes,
              ::testing::UnorderedElementsAre(::testing::Pair("pcie 0 out", 10), ::testing::Pair("nic 0 out", 10),
                                              ::testing::Pair("nic 2 in", 10), ::testing::Pair("pcie 2 in", 15),
                                              ::testing::Pair("nvlink 0 out", 3), ::testing::Pair("nvlink 1 in", 3)));
  RunAll();
}

// Another network at the same time has its own links and its own clock.
TEST_P(FlowNetworkTest, TwoNetworks) {
  auto cluster = std::move(cluster_);
  auto queue = std::move(queue_);
  auto network = std::move(network_);
  Build(4, 2);
  EXPECT_EQ(Start(0, {{0, 2, 10}}), PhaseId(0));
  std::vector<SimTime> told;
  network->Start(StreamId(0), Matrix({{0, 2, 10}}), Times({0, 0, 0, 0}),
                 [&](PhaseId, absl::Span<const SimTime> finish) { told.assign(finish.begin(), finish.end()); });
  RunAll();
  while (!queue->empty()) queue->Step();
  EXPECT_EQ(Finish(PhaseId(0))[2], 27'000);
  EXPECT_EQ(told[2], At(15'000));
}

using FlowNetworkDeathTest = FlowNetworkTest;

TEST_P(FlowNetworkDeathTest, BrokenContracts) {
  RunUntil(100);
  EXPECT_DEATH(Start(0, Matrix({}), {100, 99, 100, 100}), "release");
  EXPECT_DEATH(Start(0, Matrix({}), {100, 100, 100}), "release.size");
  EXPECT_DEATH(Start(0, Matrix({{0, 1, -1}}), {100, 100, 100, 100}), "bytes");
  TrafficMatrix small{3, std::vector<int64_t>(9)};
  EXPECT_DEATH(Start(0, small, {100, 100, 100, 100}), "traffic.ranks");
  const PhaseId phase = Start(0, Matrix({}), {100, 100, 100, 100});
  EXPECT_DEATH(network_->Revise(phase, Times({99, 100, 100, 100})), "release");
  RunUntil(6'000);
  EXPECT_DEATH(network_->Revise(phase, Times({100, 100, 100, 100})), "reported");
}

INSTANTIATE_TEST_SUITE_P(Models, FlowNetworkTest, ::testing::Values("max_min", "simgrid"),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Models, FlowNetworkDeathTest, ::testing::Values("max_min"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace epsim
