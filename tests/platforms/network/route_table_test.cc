#include "platforms/network/route_table.h"

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

struct Case {
  const char* name;
  const char* platform;
  int ranks;
};

class RouteTableTest : public ::testing::TestWithParam<Case> {
 protected:
  RouteTableTest() {
    PlatformSpec platform;
    EXPECT_TRUE(ParseTextProto(
                    std::string(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" })") + GetParam().platform,
                    "platform", &platform)
                    .ok());
    auto cluster = Cluster::Create(platform, GetParam().ranks);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    if (cluster.ok()) cluster_ = std::make_unique<Cluster>(*std::move(cluster));
  }
  std::vector<Way> Ways() const {
    return cluster_->has_network() ? std::vector<Way>{Way::kFastest, Way::kNetwork} : std::vector<Way>{Way::kFastest};
  }
  std::unique_ptr<Cluster> cluster_;
};

// For every link, the pairs are those whose route names it, each once.
TEST_P(RouteTableTest, RunsAreTheRoutes) {
  for (const Way way : Ways()) {
    const RouteTable table(*cluster_, way);
    std::vector<std::multiset<std::pair<int, int>>> expected(cluster_->links().size());
    for (int s = 0; s < cluster_->ranks(); ++s) {
      for (int d = 0; d < cluster_->ranks(); ++d) {
        if (s == d) continue;
        const Route route = cluster_->route(Rank(s), Rank(d), way);
        EXPECT_EQ(table.latency(s, d), route.latency);
        for (const Link link : route.links()) expected[Index(link)].emplace(s, d);
      }
    }
    for (int link = 0; link < table.links(); ++link) {
      std::multiset<std::pair<int, int>> pairs;
      table.ForEachRun(link, [&](const RouteTable::Run& run) {
        for (int d = run.begin; d < run.end; ++d) {
          if (d != run.source) pairs.emplace(run.source, d);
        }
      });
      EXPECT_EQ(pairs, expected[link]) << Name(cluster_->links()[link]);
    }
  }
}

// Near is who shares the node, unless all goes over the network.
TEST_P(RouteTableTest, NearAndFar) {
  for (const Way way : Ways()) {
    const RouteTable table(*cluster_, way);
    for (int a = 0; a < cluster_->ranks(); ++a) {
      for (int b = 0; b < cluster_->ranks(); ++b) {
        if (a == b) continue;
        const bool near = way == Way::kFastest && cluster_->node_of(Rank(a)) == cluster_->node_of(Rank(b));
        EXPECT_EQ(b >= table.near_begin(a) && b < table.near_end(a), near) << a << " " << b;
        EXPECT_TRUE(near ? table.has_near() : table.has_far());
      }
    }
  }
}

constexpr Case kCases[] = {
    {"one_rank", R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "1 us" })", 1},
    {"nvlink_and_nics", R"(gpus_per_node: 3 nvlink { bandwidth: "1 GB/s" latency: "1 us" }
                           nic { bandwidth: "1 GB/s" latency: "2 us" })",
     9},
    {"shared_nics", R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "1 us" }
                       nic { bandwidth: "1 GB/s" latency: "2 us" per_node: 2 })",
     12},
    {"fat_tree", R"(gpus_per_node: 2 nvlink { bandwidth: "1 GB/s" latency: "1 us" }
                    nic { bandwidth: "1 GB/s" latency: "2 us" }
                    fabric { leaf { nodes: 2 latency: "1 us" } spine { nodes: 4 latency: "1 us" } })",
     20},
    {"rails", R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "1 us" }
                 nic { bandwidth: "1 GB/s" latency: "2 us" }
                 fabric { wiring: RAIL_OPTIMIZED leaf { nodes: 2 latency: "1 us" } })",
     16},
    {"single_gpus", R"(gpus_per_node: 1 pcie { bandwidth: "1 GB/s" latency: "1 us" }
                       nic { bandwidth: "1 GB/s" latency: "2 us" over_pcie: true }
                       fabric { leaf { nodes: 1 } })",
     5},
    {"pcie_switches", R"(gpus_per_node: 8 pcie { bandwidth: "1 GB/s" latency: "1 us" gpus_per_switch: 2 }
                         nic { bandwidth: "1 GB/s" latency: "2 us" over_pcie: true per_node: 4 })",
     16},
};
INSTANTIATE_TEST_SUITE_P(Platforms, RouteTableTest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// Which links are ports: one for each rank, whatever they are called.
TEST(RouteTablePortsTest, PortsAndSharedLinks) {
  PlatformSpec platform;
  ASSERT_TRUE(ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" }
                                gpus_per_node: 4 pcie { bandwidth: "1 GB/s" latency: "1 us" gpus_per_switch: 2 }
                                nic { bandwidth: "1 GB/s" latency: "2 us" over_pcie: true per_node: 2 })",
                             "platform", &platform)
                  .ok());
  const auto cluster = Cluster::Create(platform, 8);
  ASSERT_TRUE(cluster.ok());
  const RouteTable table(*cluster, Way::kFastest);
  ASSERT_EQ(table.ports().size(), 1);
  EXPECT_EQ(table.ports()[0].link_class, LinkClass::kPcie);
  EXPECT_TRUE(table.ports()[0].near && table.ports()[0].far);
  EXPECT_EQ(table.ports()[0].latency, Duration(1'000'000));
  EXPECT_EQ(table.shared().size(), 4 * 2 + 4 * 2);  // Four switches and four NICs, out and in.
}

}  // namespace
}  // namespace epsim
