#include "platforms/cluster.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_join.h"
#include "engine/text_proto.h"
#include "engine/unit_text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kPlatform[] = R"(
  gpu { name: "G" memory: "80 GB" memory_bandwidth: "3 TB/s" bf16: "1 PFLOP/s" }
  gpus_per_node: 4
  nvlink { bandwidth: "400 GB/s" latency: "3 us" }
  pcie { bandwidth: "64 GB/s" latency: "4 us" }
  nic { bandwidth: "50 GB/s" latency: "5 us" })";

// kPlatform with the fields of each text set or changed.
PlatformSpec Platform(const std::vector<std::string>& assignments = {}) {
  PlatformSpec platform;
  EXPECT_TRUE(ParseTextProto(kPlatform, "platform", &platform).ok());
  for (const std::string& assignment : assignments) {
    const absl::Status status = SetField(assignment, &platform);
    EXPECT_TRUE(status.ok()) << status;
  }
  return platform;
}
PlatformSpec Platform(const char* assignment) { return Platform(std::vector<std::string>{assignment}); }

ClusterOverrides Overrides(const std::string& text) {
  ClusterOverrides overrides;
  const absl::Status status = ParseTextProto(text, "overrides", &overrides);
  EXPECT_TRUE(status.ok()) << status;
  return overrides;
}

std::string Error(const PlatformSpec& platform, int ranks, const ClusterOverrides& overrides = {}) {
  const auto cluster = Cluster::Create(platform, ranks, overrides);
  EXPECT_EQ(cluster.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(cluster.status().message()), HasSubstr("platform \"G\": "));
  return std::string(cluster.status().message());
}

Cluster Make(const PlatformSpec& platform, int ranks, const ClusterOverrides& overrides = {}) {
  auto cluster = Cluster::Create(platform, ranks, overrides);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *std::move(cluster);
}

// The names of the route's links: "nvlink 0 out, nvlink 3 in".
std::string Links(const Cluster& cluster, const Route& route) {
  std::vector<std::string> names;
  for (const Link link : route.links()) names.push_back(Name(cluster.links()[Index(link)]));
  return absl::StrJoin(names, ", ");
}

std::string Links(const Cluster& cluster, int source, int destination, Way way = Way::kFastest) {
  return Links(cluster, cluster.route(Rank(source), Rank(destination), way));
}

Duration Latency(const Cluster& cluster, int source, int destination, Way way = Way::kFastest) {
  return cluster.route(Rank(source), Rank(destination), way).latency;
}

// Of the link called `name`, in GB/s; 0 if there is none.
double Bandwidth(const Cluster& cluster, const std::string& name) {
  for (const LinkSpec& link : cluster.links()) {
    if (Name(link) == name) return static_cast<double>(link.bandwidth.count()) / 1e9;
  }
  return 0;
}

// How many links there are of a class.
int64_t Count(const Cluster& cluster, LinkClass link_class) {
  return std::count_if(cluster.links().begin(), cluster.links().end(),
                       [link_class](const LinkSpec& link) { return link.link_class == link_class; });
}

constexpr std::chrono::microseconds kMicrosecond(1);

TEST(ClusterTest, RanksFillNodesInOrder) {
  const Cluster cluster = Make(Platform(), 12);
  EXPECT_EQ(cluster.nodes(), 3);
  EXPECT_EQ(cluster.ranks_per_node(), 4);
  EXPECT_EQ(cluster.node_of(Rank(3)), Node(0));
  EXPECT_EQ(cluster.node_of(Rank(4)), Node(1));
  EXPECT_EQ(cluster.node_of(Rank(11)), Node(2));
}

TEST(ClusterTest, ARailJoinsTheRanksWithTheSamePlaceInTheirNodes) {
  const Cluster cluster = Make(Platform(), 12);
  EXPECT_EQ(cluster.rail_peer(Rank(1), Node(2)), Rank(9));
  EXPECT_EQ(cluster.rail_peer(Rank(9), Node(0)), Rank(1));
  EXPECT_EQ(cluster.rail_peer(Rank(11), Node(2)), Rank(11));
}

TEST(ClusterTest, NvlinkInsideANodeNicBetweenNodes) {
  const Cluster cluster = Make(Platform(), 8);
  EXPECT_TRUE(cluster.has_nvlink());
  EXPECT_TRUE(cluster.has_network());
  EXPECT_EQ(Links(cluster, 0, 3), "nvlink 0 out, nvlink 3 in");
  EXPECT_EQ(Latency(cluster, 0, 3), 3 * kMicrosecond);
  EXPECT_EQ(Links(cluster, 3, 4), "nic 3 out, nic 4 in");
  EXPECT_EQ(Latency(cluster, 3, 4), 5 * kMicrosecond);
  EXPECT_EQ(Links(cluster, 5, 5), "");
  EXPECT_EQ(Latency(cluster, 5, 5), Duration(0));
  for (const char* name : {"nvlink 0 out", "nvlink 7 in"}) EXPECT_EQ(Bandwidth(cluster, name), 400) << name;
  for (const char* name : {"nic 0 out", "nic 7 in"}) EXPECT_EQ(Bandwidth(cluster, name), 50) << name;
  for (const char* name : {"pcie 0 out", "pcie 7 in"}) EXPECT_EQ(Bandwidth(cluster, name), 64) << name;
}

TEST(ClusterTest, TheNetworkMayBeAskedForInsideANode) {
  const Cluster cluster = Make(Platform(), 4);
  EXPECT_EQ(Links(cluster, 0, 3, Way::kNetwork), "nic 0 out, nic 3 in");
  EXPECT_EQ(Latency(cluster, 0, 3, Way::kNetwork), 5 * kMicrosecond);
  EXPECT_EQ(Links(cluster, 2, 2, Way::kNetwork), "");
  // Between nodes there is no other way.
  const Cluster two = Make(Platform(), 8);
  EXPECT_EQ(Links(two, 0, 4, Way::kNetwork), Links(two, 0, 4));
}

TEST(ClusterDeathTest, NoNetworkWithoutANic) {
  PlatformSpec platform = Platform();
  platform.clear_nic();
  const Cluster cluster = Make(platform, 4);
  EXPECT_FALSE(cluster.has_network());
  EXPECT_DEATH(cluster.route(Rank(0), Rank(1), Way::kNetwork), "has_network");
}

TEST(ClusterTest, PcieWhereThereIsNoNvlink) {
  PlatformSpec platform = Platform();
  platform.clear_nvlink();
  const Cluster cluster = Make(platform, 4);
  EXPECT_FALSE(cluster.has_nvlink());
  EXPECT_EQ(Links(cluster, 0, 1), "pcie 0 out, pcie 1 in");
  EXPECT_EQ(Latency(cluster, 0, 1), 4 * kMicrosecond);
}

// A link a direction, class and rank; every one of them lies on a route.
TEST(ClusterTest, LinksBelongToRanks) {
  const Cluster cluster = Make(Platform(), 8);
  EXPECT_EQ(cluster.links().size(), 8 * 3 * 2);
  std::set<Link> used;
  const auto use = [&used](const Route& route) { used.insert(route.links().begin(), route.links().end()); };
  for (int s = 0; s < 8; ++s) {
    use(cluster.from_host(Rank(s)));
    use(cluster.to_host(Rank(s)));
    for (int d = 0; d < 8; ++d) use(cluster.route(Rank(s), Rank(d)));
  }
  EXPECT_EQ(used.size(), cluster.links().size());
}

TEST(ClusterTest, RoutesSurviveAMove) {
  Cluster cluster = Make(Platform(), 8);
  const Cluster moved = std::move(cluster);
  EXPECT_EQ(Links(moved, 3, 4), "nic 3 out, nic 4 in");
}

TEST(PcieTest, AGpuWithoutASwitchReachesItsHostByItsOwnPort) {
  const Cluster cluster = Make(Platform(), 4);
  EXPECT_EQ(Links(cluster, cluster.from_host(Rank(2))), "pcie 2 in");
  EXPECT_EQ(Links(cluster, cluster.to_host(Rank(2))), "pcie 2 out");
  EXPECT_EQ(cluster.from_host(Rank(2)).latency, 4 * kMicrosecond);
  EXPECT_EQ(cluster.to_host(Rank(2)).latency, 4 * kMicrosecond);
}

// Two GPUs a switch; the uplink is as wide as a port unless it is told.
TEST(PcieTest, NeighboursShareTheUplinkOfTheirSwitch) {
  const Cluster cluster = Make(Platform("pcie.gpus_per_switch=2"), 8);
  EXPECT_EQ(Count(cluster, LinkClass::kPcieSwitch), 4 * 2);
  EXPECT_EQ(Bandwidth(cluster, "pcie_switch 3 out"), 64);
  EXPECT_EQ(Links(cluster, cluster.from_host(Rank(0))), "pcie_switch 0 in, pcie 0 in");
  EXPECT_EQ(Links(cluster, cluster.from_host(Rank(1))), "pcie_switch 0 in, pcie 1 in");
  EXPECT_EQ(Links(cluster, cluster.to_host(Rank(7))), "pcie 7 out, pcie_switch 3 out");
  const Cluster wide = Make(Platform({"pcie.gpus_per_switch=2", "pcie.switch_bandwidth=100 GB/s"}), 8);
  EXPECT_EQ(Bandwidth(wide, "pcie_switch 0 in"), 100);
  EXPECT_EQ(Bandwidth(wide, "pcie 0 in"), 64);
}

TEST(PcieTest, TrafficInsideASwitchStaysBelowIt) {
  PlatformSpec platform = Platform("pcie.gpus_per_switch=2");
  platform.clear_nvlink();
  const Cluster cluster = Make(platform, 4);
  EXPECT_EQ(Links(cluster, 0, 1), "pcie 0 out, pcie 1 in");
  EXPECT_EQ(Links(cluster, 1, 2), "pcie 1 out, pcie_switch 0 out, pcie_switch 1 in, pcie 2 in");
  // NVLink goes past the switches.
  EXPECT_EQ(Links(Make(Platform("pcie.gpus_per_switch=2"), 4), 1, 2), "nvlink 1 out, nvlink 2 in");
}

TEST(PcieTest, AHostHasOneMemoryForItsGpus) {
  const PlatformSpec platform = Platform({"pcie.gpus_per_switch=2", "host.memory_bandwidth=300 GB/s"});
  const Cluster cluster = Make(platform, 8);
  EXPECT_EQ(Count(cluster, LinkClass::kHostMemory), 2 * 2);
  EXPECT_EQ(Bandwidth(cluster, "host_memory 1 out"), 300);
  EXPECT_EQ(Links(cluster, cluster.from_host(Rank(3))), "host_memory 0 out, pcie_switch 1 in, pcie 3 in");
  EXPECT_EQ(Links(cluster, cluster.to_host(Rank(4))), "pcie 4 out, pcie_switch 2 out, host_memory 1 in");
  // As in GB200: several hosts in one NVLink domain.
  const Cluster trays = Make(Platform({"host.gpus=2", "host.memory_bandwidth=300 GB/s"}), 8);
  EXPECT_EQ(Count(trays, LinkClass::kHostMemory), 4 * 2);
  EXPECT_EQ(Links(trays, trays.from_host(Rank(3))), "host_memory 1 out, pcie 3 in");
}

TEST(PcieTest, APartlyUsedNodeHasTheSwitchesOfItsRanks) {
  const Cluster cluster = Make(Platform({"pcie.gpus_per_switch=2", "host.memory_bandwidth=300 GB/s"}), 3);
  EXPECT_EQ(Count(cluster, LinkClass::kPcieSwitch), 2 * 2);
  EXPECT_EQ(Count(cluster, LinkClass::kHostMemory), 2);
  EXPECT_EQ(Links(cluster, cluster.from_host(Rank(2))), "host_memory 0 out, pcie_switch 1 in, pcie 2 in");
}

TEST(PcieTest, GroupsDivideTheNode) {
  EXPECT_EQ(Error(Platform("pcie.gpus_per_switch=3"), 4),
            "platform \"G\": pcie.gpus_per_switch: 3 do not divide the 4 GPUs of a node");
  EXPECT_EQ(Error(Platform("pcie.gpus_per_switch=8"), 4),
            "platform \"G\": pcie.gpus_per_switch: 8 do not divide the 4 GPUs of a node");
  EXPECT_EQ(Error(Platform("host.gpus=3"), 4), "platform \"G\": host.gpus: 3 do not divide the 4 GPUs of a node");
  EXPECT_EQ(Error(Platform({"pcie.gpus_per_switch=2", "pcie.switch_bandwidth=1 B/s"}), 4),
            "platform \"G\": pcie.switch_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("host.memory_bandwidth=1 B/s"), 4),
            "platform \"G\": host.memory_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s");
  PlatformSpec platform = Platform();
  platform.mutable_host()->set_memory("2");
  EXPECT_THAT(Error(platform, 4), HasSubstr("host.memory: \"2\" has no unit"));
}

TEST(NicTest, FewerThanGpusAreSharedByNeighbours) {
  const Cluster cluster = Make(Platform("nic.per_node=2"), 8);
  EXPECT_EQ(Count(cluster, LinkClass::kNic), 4 * 2);
  EXPECT_EQ(Bandwidth(cluster, "nic 0 out"), 50);
  EXPECT_EQ(Links(cluster, 0, 4), "nic 0 out, nic 2 in");
  EXPECT_EQ(Links(cluster, 1, 7), "nic 0 out, nic 3 in");
  // Out of the NIC and into it again.
  EXPECT_EQ(Links(cluster, 0, 1, Way::kNetwork), "nic 0 out, nic 0 in");
}

TEST(NicTest, MoreThanGpusAreOneWideWay) {
  const Cluster cluster = Make(Platform("nic.per_node=8"), 8);
  EXPECT_EQ(Count(cluster, LinkClass::kNic), 8 * 2);
  EXPECT_EQ(Bandwidth(cluster, "nic 7 in"), 100);
  EXPECT_EQ(Links(cluster, 0, 7), "nic 0 out, nic 7 in");
}

TEST(NicTest, MayLieBehindThePciePort) {
  const Cluster cluster = Make(Platform({"nic.over_pcie=true", "pcie.gpus_per_switch=2"}), 8);
  // The NIC is below the GPU's switch: no uplink.
  EXPECT_EQ(Links(cluster, 1, 6), "pcie 1 out, nic 1 out, nic 6 in, pcie 6 in");
  EXPECT_EQ(Latency(cluster, 1, 6), 5 * kMicrosecond);
  EXPECT_EQ(Links(cluster, 1, 2), "nvlink 1 out, nvlink 2 in");
  EXPECT_EQ(Links(cluster, 1, 2, Way::kNetwork), "pcie 1 out, nic 1 out, nic 2 in, pcie 2 in");
  PlatformSpec without = Platform("nic.over_pcie=true");
  without.clear_pcie();
  EXPECT_EQ(Error(without, 4), "platform \"G\": nic.over_pcie: the platform has no pcie");
}

TEST(NicTest, AreSharedEvenly) {
  EXPECT_EQ(Error(Platform("nic.per_node=3"), 4),
            "platform \"G\": nic.per_node: 3 are not shared evenly by the 4 GPUs of a node");
  EXPECT_EQ(Error(Platform("nic.per_node=6"), 4),
            "platform \"G\": nic.per_node: 6 are not shared evenly by the 4 GPUs of a node");
}

// Two nodes of four GPUs a leaf, two leaves a spine: nodes 0 and 1, 2 and 3 | 4 and 5, 6 and 7.
const std::vector<std::string> kFatTree = {"fabric.leaf.nodes=2", "fabric.leaf.latency=1 us", "fabric.spine.nodes=4",
                                           "fabric.spine.latency=2 us"};

std::vector<std::string> With(std::vector<std::string> assignments, const std::vector<std::string>& more) {
  assignments.insert(assignments.end(), more.begin(), more.end());
  return assignments;
}

TEST(FabricTest, TrafficClimbsAsHighAsItMust) {
  const Cluster cluster = Make(Platform(kFatTree), 32);
  EXPECT_EQ(Count(cluster, LinkClass::kLeaf), 4 * 2);
  EXPECT_EQ(Count(cluster, LinkClass::kSpine), 2 * 2);
  EXPECT_EQ(Links(cluster, 0, 4), "nic 0 out, nic 4 in");
  EXPECT_EQ(Links(cluster, 0, 8), "nic 0 out, leaf 0 out, leaf 1 in, nic 8 in");
  EXPECT_EQ(Links(cluster, 12, 16), "nic 12 out, leaf 1 out, spine 0 out, spine 1 in, leaf 2 in, nic 16 in");
  EXPECT_EQ(Links(cluster, 31, 0), "nic 31 out, leaf 3 out, spine 1 out, spine 0 in, leaf 0 in, nic 0 in");
  EXPECT_EQ(Links(cluster, 0, 3), "nvlink 0 out, nvlink 3 in");
  EXPECT_EQ(Latency(cluster, 0, 4), 5 * kMicrosecond);
  EXPECT_EQ(Latency(cluster, 0, 8), 6 * kMicrosecond);
  EXPECT_EQ(Latency(cluster, 12, 16), 8 * kMicrosecond);
}

TEST(FabricTest, TheLongestRouteCrossesEightLinks) {
  const Cluster cluster = Make(Platform(With(kFatTree, {"nic.over_pcie=true"})), 32);
  EXPECT_EQ(Links(cluster, 0, 31),
            "pcie 0 out, nic 0 out, leaf 0 out, spine 0 out, spine 1 in, leaf 3 in, nic 31 in, pcie 31 in");
  EXPECT_EQ(cluster.route(Rank(0), Rank(31)).links().size(), Route::kMostLinks);
}

// 2 nodes x 4 NICs x 50 GB/s arrive at a leaf, 400 GB/s; four times oversubscribed 100 GB/s leave it.  2 leaves of that
// arrive at a spine; twice oversubscribed 100 GB/s leave it.
TEST(FabricTest, UplinksAreWhatOversubscriptionLeaves) {
  const Cluster full = Make(Platform(kFatTree), 32);
  EXPECT_EQ(Bandwidth(full, "leaf 0 out"), 400);
  EXPECT_EQ(Bandwidth(full, "spine 1 in"), 800);
  const Cluster thin =
      Make(Platform(With(kFatTree, {"fabric.leaf.oversubscription=4", "fabric.spine.oversubscription=2"})), 32);
  EXPECT_EQ(Bandwidth(thin, "leaf 3 in"), 100);
  EXPECT_EQ(Bandwidth(thin, "spine 0 out"), 100);
  // Shared NICs bring half, doubled ones twice as much.
  EXPECT_EQ(Bandwidth(Make(Platform(With(kFatTree, {"nic.per_node=2"})), 32), "leaf 0 out"), 200);
  EXPECT_EQ(Bandwidth(Make(Platform(With(kFatTree, {"nic.per_node=8"})), 32), "leaf 0 out"), 800);
  // A third of 400 GB/s, to the nearest byte a second.
  EXPECT_DOUBLE_EQ(Bandwidth(Make(Platform(With(kFatTree, {"fabric.leaf.oversubscription=3"})), 32), "leaf 0 out"),
                   133.333333333);
}

// A leaf for each of the four rails: the ranks with the same place in the nodes of a group talk below it, all others
// across leaves, even inside a node.
TEST(FabricTest, RailsHaveLeavesOfTheirOwn) {
  const Cluster cluster = Make(Platform(With(kFatTree, {"fabric.wiring=RAIL_OPTIMIZED"})), 32);
  EXPECT_EQ(Count(cluster, LinkClass::kLeaf), 4 * 4 * 2);
  EXPECT_EQ(Links(cluster, 1, 5), "nic 1 out, nic 5 in");
  EXPECT_EQ(Links(cluster, 1, 6), "nic 1 out, leaf 1 out, leaf 2 in, nic 6 in");
  EXPECT_EQ(Links(cluster, 1, 2, Way::kNetwork), "nic 1 out, leaf 1 out, leaf 2 in, nic 2 in");
  EXPECT_EQ(Links(cluster, 1, 9), "nic 1 out, leaf 1 out, leaf 5 in, nic 9 in");
  EXPECT_EQ(Links(cluster, 1, 17), "nic 1 out, leaf 1 out, spine 0 out, spine 1 in, leaf 9 in, nic 17 in");
  // A leaf has a NIC of each of its two nodes; a spine all of them, as in the fat tree.
  EXPECT_EQ(Bandwidth(cluster, "leaf 15 out"), 100);
  EXPECT_EQ(Bandwidth(cluster, "spine 0 out"), 800);
  // Two GPUs share a NIC and its rail.
  const Cluster shared = Make(Platform(With(kFatTree, {"fabric.wiring=RAIL_OPTIMIZED", "nic.per_node=2"})), 16);
  EXPECT_EQ(Links(shared, 1, 4), "nic 0 out, nic 2 in");
  EXPECT_EQ(Links(shared, 1, 6), "nic 0 out, leaf 0 out, leaf 1 in, nic 3 in");
}

TEST(FabricTest, WithoutASpineLeavesAreJoinedByOneThatDoesNotBlock) {
  const Cluster cluster = Make(Platform({"fabric.leaf.nodes=1", "fabric.leaf.oversubscription=2"}), 12);
  EXPECT_EQ(Count(cluster, LinkClass::kSpine), 0);
  EXPECT_EQ(Links(cluster, 0, 11), "nic 0 out, leaf 0 out, leaf 2 in, nic 11 in");
  EXPECT_EQ(Bandwidth(cluster, "leaf 2 in"), 100);
}

TEST(FabricTest, ALeafMayHaveRoomForMoreNodes) {
  const Cluster cluster = Make(Platform("fabric.leaf.nodes=16"), 12);
  EXPECT_EQ(Count(cluster, LinkClass::kLeaf), 2);
  EXPECT_EQ(Links(cluster, 0, 11), "nic 0 out, nic 11 in");
}

TEST(FabricTest, TiersThatMakeNoSenseAreNamed) {
  EXPECT_EQ(Error(Platform("fabric.spine.nodes=4"), 8), "platform \"G\": fabric.leaf: missing");
  EXPECT_EQ(Error(Platform("fabric.leaf.oversubscription=2"), 8), "platform \"G\": fabric.leaf.nodes: missing");
  EXPECT_EQ(Error(Platform({"fabric.leaf.nodes=2", "fabric.spine.latency=1 us"}), 8),
            "platform \"G\": fabric.spine.nodes: missing");
  EXPECT_EQ(Error(Platform("fabric.leaf.nodes=5000"), 8), "platform \"G\": fabric.leaf.nodes: 5000 is more than 4096");
  EXPECT_EQ(Error(Platform({"fabric.leaf.nodes=2", "fabric.leaf.oversubscription=0.5"}), 8),
            "platform \"G\": fabric.leaf.oversubscription: 0.5 is not from 1 to 1000");
  EXPECT_EQ(Error(Platform({"fabric.leaf.nodes=2", "fabric.leaf.oversubscription=nan"}), 8),
            "platform \"G\": fabric.leaf.oversubscription: nan is not from 1 to 1000");
  EXPECT_EQ(Error(Platform({"fabric.leaf.nodes=2", "fabric.leaf.latency=2 s"}), 8),
            "platform \"G\": fabric.leaf.latency: \"2 s\" is not from 0 to 1 s");
  EXPECT_EQ(Error(Platform({"fabric.leaf.nodes=2", "fabric.spine.nodes=3"}), 8),
            "platform \"G\": fabric.spine.nodes: 3 are not whole leaves of 2 nodes");
}

TEST(OverridesTest, OneGpuMayBeSlow) {
  const Cluster cluster = Make(Platform(), 4, Overrides("gpu { rank: 2 speed: 0.8 }"));
  EXPECT_EQ(cluster.gpu_speed(Rank(1)), 1);
  EXPECT_EQ(cluster.gpu_speed(Rank(2)), 0.8);
}

TEST(OverridesTest, ALinkMayBeDegradedInOneDirectionOrBoth) {
  const Cluster cluster = Make(Platform("nic.per_node=2"), 8, Overrides(R"(
      link { name: "nvlink 1" bandwidth: "100 GB/s" }
      link { name: "nic 3 in" bandwidth: "10 GB/s" })"));
  EXPECT_EQ(Bandwidth(cluster, "nvlink 1 out"), 100);
  EXPECT_EQ(Bandwidth(cluster, "nvlink 1 in"), 100);
  EXPECT_EQ(Bandwidth(cluster, "nvlink 0 out"), 400);
  EXPECT_EQ(Bandwidth(cluster, "nvlink 2 in"), 400);
  EXPECT_EQ(Bandwidth(cluster, "nic 3 in"), 10);
  EXPECT_EQ(Bandwidth(cluster, "nic 3 out"), 50);
}

// "nvlink 1" is not "nvlink 10".
TEST(OverridesTest, NamesAreWhole) {
  const Cluster cluster = Make(Platform(), 12, Overrides(R"(link { name: "nvlink 1" bandwidth: "100 GB/s" })"));
  EXPECT_EQ(Bandwidth(cluster, "nvlink 10 out"), 400);
  EXPECT_EQ(Bandwidth(cluster, "nvlink 11 in"), 400);
}

TEST(OverridesTest, WhatIsNotThereIsNamed) {
  const auto error = [](const std::string& text) { return Error(Platform("nic.per_node=2"), 8, Overrides(text)); };
  EXPECT_EQ(error("gpu { rank: 8 speed: 1 }"), "platform \"G\": overrides.gpu.rank: 8 is not below 8");
  EXPECT_EQ(error("gpu { rank: 1 }"), "platform \"G\": overrides.gpu.speed: 0 is not from 0.001 to 1000");
  EXPECT_EQ(error("gpu { rank: 1 speed: nan }"), "platform \"G\": overrides.gpu.speed: nan is not from 0.001 to 1000");
  EXPECT_EQ(error(R"(link { name: "nic 0" })"), "platform \"G\": overrides.link.bandwidth: missing");
  ClusterOverrides unknown = Overrides(R"(link { name: "leaf 0" bandwidth: "1 GB/s" })");
  for (const char* name : {"leaf 0", "nvlink", "nvlink 8", "nic 4 in", "nic 3 up", "nvlink 1 ", ""}) {
    unknown.mutable_link(0)->set_name(name);
    EXPECT_EQ(Error(Platform("nic.per_node=2"), 8, unknown),
              "platform \"G\": overrides.link.name: no link \"" + std::string(name) +
                  "\"; there are nvlink 0 to 7, pcie 0 to 7, nic 0 to 3, each with in and out");
  }
}

TEST(LinkNameTest, SaysClassPlaceAndDirection) {
  std::vector<std::string> names;
  for (const LinkClass link_class : kAllLinkClasses) names.emplace_back(Name(link_class));
  EXPECT_THAT(names, ElementsAre("nvlink", "pcie", "pcie_switch", "host_memory", "nic", "leaf", "spine"));
  EXPECT_EQ(names.size(), kLinkClasses);
  EXPECT_EQ(Name(LinkSpec{LinkClass::kPcieSwitch, 12, false, BytesPerSecond(1)}), "pcie_switch 12 in");
}

TEST(ClusterTest, OneNodeMayBePartlyUsed) {
  for (int ranks : {1, 2, 3, 4}) {
    const Cluster cluster = Make(Platform(), ranks);
    EXPECT_EQ(cluster.nodes(), 1);
    EXPECT_EQ(cluster.ranks_per_node(), ranks);
  }
}

TEST(ClusterTest, CountsThatDoNotFitNameThoseThatDo) {
  EXPECT_THAT(Error(Platform(), 6), HasSubstr("ranks: 6 leave a node of 4 partly used; 4 or 8 would fit"));
  EXPECT_THAT(Error(Platform(), 0), HasSubstr("ranks: 0 is not between 1 and 4096"));
  EXPECT_THAT(Error(Platform(), -3), HasSubstr("ranks: -3 is not between"));
  EXPECT_THAT(Error(Platform(), 5000), HasSubstr("ranks: 5000 is not between"));
}

TEST(ClusterTest, SeveralNodesNeedANic) {
  PlatformSpec platform = Platform();
  platform.clear_nic();
  EXPECT_EQ(Make(platform, 4).nodes(), 1);
  EXPECT_EQ(
      Error(platform, 8),
      "platform \"G\": ranks: 8 need several nodes of 4, but the platform has no nic to join them; at most 4 would "
      "fit");
}

TEST(ClusterTest, MissingAndImpossibleQuantitiesAreNamed) {
  EXPECT_THAT(Error(Platform("gpu.memory="), 1), HasSubstr("gpu.memory: missing"));
  EXPECT_THAT(Error(Platform("gpu.memory_bandwidth="), 1), HasSubstr("gpu.memory_bandwidth: missing"));
  EXPECT_THAT(Error(Platform("nvlink.bandwidth="), 1), HasSubstr("nvlink.bandwidth: missing"));
  EXPECT_THAT(Error(Platform("nic.latency="), 1), HasSubstr("nic.latency: missing"));
  EXPECT_THAT(Error(Platform("gpus_per_node=0"), 1), HasSubstr("gpus_per_node: missing"));
  EXPECT_THAT(Error(Platform("gpus_per_node=4000000000"), 1), HasSubstr("gpus_per_node: 4000000000 is more than"));
  PlatformSpec platform = Platform();
  platform.mutable_gpu()->set_memory("0 GB");
  EXPECT_THAT(Error(platform, 1), HasSubstr("gpu.memory: \"0 GB\" is not positive"));
  platform = Platform();
  platform.mutable_pcie()->set_bandwidth("0 GB/s");  // As code may set it, past the text reader.
  EXPECT_THAT(Error(platform, 1), HasSubstr("pcie.bandwidth: \"0 GB/s\" is out of range"));
  platform = Platform();
  platform.mutable_gpu()->set_fp8("2");
  EXPECT_THAT(Error(platform, 1), HasSubstr("gpu.fp8: \"2\" has no unit"));
  platform = Platform();
  platform.clear_nvlink();
  platform.clear_pcie();
  EXPECT_THAT(Error(platform, 1), HasSubstr("neither nvlink nor pcie"));
}

TEST(ClusterTest, QuantitiesThatNoHardwareHasAreNamedWithTheRange) {
  EXPECT_EQ(Error(Platform("gpu.memory_bandwidth=1 B/s"), 1),
            "platform \"G\": gpu.memory_bandwidth: \"1 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("nvlink.bandwidth=999999 B/s"), 1),
            "platform \"G\": nvlink.bandwidth: \"999999 B/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("nic.bandwidth=1000001 TB/s"), 1),
            "platform \"G\": nic.bandwidth: \"1000001 TB/s\" is not from 1 MB/s to 1 EB/s");
  EXPECT_EQ(Error(Platform("gpu.bf16=1e-300 GFLOP/s"), 1),
            "platform \"G\": gpu.bf16: \"1e-300 GFLOP/s\" is not from 1 GFLOP/s to 1e9 PFLOP/s");
  EXPECT_EQ(Error(Platform("gpu.fp4=2e9 PFLOP/s"), 1),
            "platform \"G\": gpu.fp4: \"2e9 PFLOP/s\" is not from 1 GFLOP/s to 1e9 PFLOP/s");
  EXPECT_EQ(Error(Platform("pcie.latency=10000 s"), 1),
            "platform \"G\": pcie.latency: \"10000 s\" is not from 0 to 1 s");
  // The bounds themselves are hardware.
  PlatformSpec platform = Platform("nvlink.bandwidth=1 MB/s");
  platform.mutable_gpu()->set_memory_bandwidth("1000000 TB/s");
  platform.mutable_gpu()->set_bf16("1 GFLOP/s");
  platform.mutable_gpu()->set_fp8("1e9 PFLOP/s");
  platform.mutable_nic()->set_latency("1 s");
  platform.mutable_pcie()->set_latency("0 s");
  EXPECT_EQ(Make(platform, 1).ranks(), 1);
}

TEST(PlatformCatalogueTest, HasThePlatformsOfTheField) {
  std::set<std::string> names;
  for (const CatalogueFile& file : PlatformCatalogue()) names.emplace(file.name);
  EXPECT_EQ(names, (std::set<std::string>{"a100-pcie", "a100-sxm", "b200-sxm", "gb200-nvl72", "h100-sxm", "h20-sxm",
                                          "h200-sxm", "h800-sxm", "l40s", "rtx-4090", "rtx-pro-6000"}));
}

TEST(PlatformCatalogueTest, EveryEntryMakesClusters) {
  for (const CatalogueFile& file : PlatformCatalogue()) {
    SCOPED_TRACE(std::string(file.path));
    const auto platform = FindPlatform(file.name);
    ASSERT_TRUE(platform.ok()) << platform.status();
    EXPECT_FALSE(platform->description().empty());
    EXPECT_FALSE(platform->gpu().name().empty());
    EXPECT_FALSE(platform->gpu().bf16().empty());
    EXPECT_GT(platform->gpu().sms(), 0);
    const std::set<uint32_t> generations = {80, 89, 90, 100, 120};
    EXPECT_TRUE(generations.contains(platform->gpu().compute_capability())) << platform->gpu().compute_capability();
    // fp8 units came with Ada and Hopper, fp4 units with Blackwell.
    EXPECT_EQ(platform->gpu().compute_capability() >= 89, !platform->gpu().fp8().empty());
    EXPECT_EQ(platform->gpu().compute_capability() >= 100, !platform->gpu().fp4().empty());
    const int per_node = static_cast<int>(platform->gpus_per_node());
    EXPECT_EQ(Make(*platform, per_node).nodes(), 1);
    if (platform->has_nic()) {
      EXPECT_EQ(Make(*platform, 2 * per_node).nodes(), 2);
    }
    // Each value stands beside its source.
    std::istringstream lines{std::string(file.text)};
    for (std::string line; std::getline(lines, line);) {
      const bool value = line.find(": ") != std::string::npos && line.find("description:") == std::string::npos &&
                         line.find("  name:") == std::string::npos;
      if (value) {
        EXPECT_THAT(line, HasSubstr("# "));
      }
    }
  }
}

TEST(PlatformCatalogueTest, UnknownPlatformListsTheNames) {
  const auto platform = FindPlatform("h100");
  EXPECT_EQ(platform.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(platform.status().message()),
              HasSubstr("no platform \"h100\"; there are a100-pcie, a100-sxm"));
}

TEST(PlatformCatalogueTest, NvlinkDomainOfGb200Is72Gpus) {
  const auto platform = FindPlatform("gb200-nvl72");
  ASSERT_TRUE(platform.ok());
  const Cluster cluster = Make(*platform, 144);
  EXPECT_EQ(cluster.nodes(), 2);
  EXPECT_EQ(cluster.links()[Index(cluster.route(Rank(0), Rank(71)).links()[0])].link_class, LinkClass::kNvlink);
  EXPECT_EQ(cluster.links()[Index(cluster.route(Rank(0), Rank(72)).links()[0])].link_class, LinkClass::kNic);
}

TEST(PlatformCatalogueTest, HostsAndSwitchesAreWhereTheyAre) {
  const Cluster gb200 = Make(*FindPlatform("gb200-nvl72"), 72);
  EXPECT_EQ(Count(gb200, LinkClass::kHostMemory), 36 * 2);  // A Grace CPU for two GPUs.
  EXPECT_EQ(Links(gb200, gb200.from_host(Rank(71))), "host_memory 35 out, pcie 71 in");
  const Cluster dgx = Make(*FindPlatform("a100-sxm"), 16);
  EXPECT_EQ(Links(dgx, dgx.to_host(Rank(9))), "pcie 9 out, pcie_switch 4 out, host_memory 1 in");
  EXPECT_EQ(Links(dgx, 1, 9), "pcie 1 out, nic 1 out, nic 9 in, pcie 9 in");
  const Cluster cards = Make(*FindPlatform("a100-pcie"), 8);
  EXPECT_EQ(Links(cards, 0, 3), "pcie 0 out, pcie 3 in");
  EXPECT_EQ(Links(cards, 0, 4), "pcie 0 out, pcie_switch 0 out, pcie_switch 1 in, pcie 4 in");
}

// The catalogue says what the reference sheet says.
TEST(PlatformCatalogueTest, AgreesWithTheReferenceSheet) {
  const std::string path = std::string(EPSIM_SHARED_DATA) + "/reference/platforms.json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << path << " is absent";
  const nlohmann::json sheet = nlohmann::json::parse(file);
  const std::map<std::string, std::string> names = {
      {"A100-80G-SXM", "a100-sxm"}, {"A100-80G-PCIe", "a100-pcie"},  {"H100-SXM", "h100-sxm"},
      {"H200-SXM", "h200-sxm"},     {"H800-SXM", "h800-sxm"},        {"H20", "h20-sxm"},
      {"B200-SXM", "b200-sxm"},     {"GB200-NVL72", "gb200-nvl72"},  {"L40S", "l40s"},
      {"RTX-4090", "rtx-4090"},     {"RTX-PRO-6000", "rtx-pro-6000"}};
  int compared = 0;
  for (const auto& row : sheet) {
    const auto name = names.find(row["name"]);
    if (name == names.end()) continue;
    SCOPED_TRACE(name->second);
    ++compared;
    const auto platform = FindPlatform(name->second);
    ASSERT_TRUE(platform.ok());
    const GpuSpec& gpu = platform->gpu();
    EXPECT_EQ(ParseBytes(gpu.memory())->count(), row["hbm_bytes"].get<int64_t>());
    EXPECT_EQ(ParseBandwidth(gpu.memory_bandwidth())->count(), row["hbm_bw"].get<double>());
    const auto expect_rate = [&](const std::string& text, const char* key) {
      if (!row.contains(key) || row[key].is_null()) {
        EXPECT_EQ(text, "") << key;
      } else {
        EXPECT_DOUBLE_EQ(ParseComputeRate(text)->count(), row[key].get<double>()) << key;
      }
    };
    expect_rate(gpu.bf16(), "bf16");
    expect_rate(gpu.fp8(), "fp8");
    expect_rate(gpu.fp4(), "fp4");
    const auto expect_port = [&](bool has, const auto& port, const char* key) {
      ASSERT_EQ(has, row.contains(key) && !row[key].is_null()) << key;
      if (has) {
        EXPECT_EQ(ParseBandwidth(port.bandwidth())->count(), row[key].get<double>()) << key;
      }
    };
    expect_port(platform->has_nvlink(), platform->nvlink(), "nvlink_uni");
    expect_port(platform->has_pcie(), platform->pcie(), "pcie_uni");
    expect_port(platform->has_nic(), platform->nic(), "nic_uni");
    EXPECT_EQ(platform->gpus_per_node(), row.value("gpus_per_nvl_domain", row["gpus_per_node"].get<int>()));
  }
  EXPECT_EQ(compared, 11);
}

// ISCA 2025 (arXiv 2505.09343), Table 5, measured on H800.
TEST(PlatformCatalogueTest, LatenciesAreThePublishedOnes) {
  const auto platform = FindPlatform("h800-sxm");
  ASSERT_TRUE(platform.ok());
  EXPECT_EQ(ParseDuration(platform->nvlink().latency())->count(), 3'330'000);
  EXPECT_EQ(ParseDuration(platform->nic().latency())->count(), 2'800'000);
}

}  // namespace
}  // namespace epsim
