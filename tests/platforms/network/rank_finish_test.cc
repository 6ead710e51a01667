// The closed forms, with their blocks, masks and shortcuts, against the formulas of their headers written out.
#include "platforms/network/rank_finish.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/network/lone_phase.h"

namespace epsim {
namespace {

struct Case {
  const char* name;
  const char* platform;
  int ranks;
  // Whether all routes over a link take as long, so that only its largest flows matter.
  bool one_latency;
};

class RankFinishTest : public ::testing::TestWithParam<Case> {
 protected:
  RankFinishTest() {
    PlatformSpec platform;
    EXPECT_TRUE(ParseTextProto(
                    std::string(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" })") + GetParam().platform,
                    "platform", &platform)
                    .ok());
    auto cluster = Cluster::Create(platform, GetParam().ranks);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    cluster_ = std::make_unique<Cluster>(*std::move(cluster));
  }

  // Draws a phase and what its stream left behind.
  void Draw(RandomStream& random, int round) {
    const int ranks = cluster_->ranks();
    way_ = cluster_->has_network() && round % 3 == 0 ? Way::kNetwork : Way::kFastest;
    table_ = std::make_unique<RouteTable>(*cluster_, way_);
    TrafficMatrix matrix{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks), way_};
    const uint64_t one_in = 1 + random.Below(4);
    for (int64_t& bytes : matrix.bytes) {
      bytes = random.Below(one_in) == 0 ? static_cast<int64_t>(random.Below(1'000)) : 0;
    }
    if (cluster_->platform().has_pcie() && round % 2 == 0) {
      for (int rank = 0; rank < ranks; ++rank) {
        matrix.from_host.push_back(random.Below(2) == 0 ? static_cast<int64_t>(random.Below(1'000)) : 0);
      }
    }
    matrix.efficiency = {.node = 1.0 / static_cast<double>(1 + random.Below(2)), .network = 0.5};
    traffic_.Assign(matrix, *table_);
    together_ = round % 4 < 2;
    release_.assign(ranks, SimTime(Duration(1'000'000)));
    for (SimTime& t : release_) {
      if (!together_) t += Duration(static_cast<int64_t>(random.Below(500'000)));
    }
    free_.assign(table_->links(), SimTime{});
    for (SimTime& t : free_) {
      if (random.Below(3) == 0) t = SimTime(Duration(static_cast<int64_t>(random.Below(1'500'000))));
    }
    bytes_.assign(table_->links(), -1);
    finish_.assign(table_->links(), SimTime{});
    lone_.Solve(traffic_, release_, free_, absl::MakeSpan(bytes_), absl::MakeSpan(finish_));
  }

  struct Flow {
    int source, destination;
    int64_t bytes;
  };
  std::vector<Flow> FlowsOn(int link) const {
    std::vector<Flow> flows;
    const auto names = [link](const Route& route) {
      return std::any_of(route.links().begin(), route.links().end(),
                         [link](Link l) { return Index(l) == Index(Link(link)); });
    };
    for (int s = 0; s < cluster_->ranks(); ++s) {
      for (int d = 0; d < cluster_->ranks(); ++d) {
        if (s == d || traffic_.bytes(s, d) == 0) continue;
        if (names(cluster_->route(Rank(s), Rank(d), way_))) flows.push_back({s, d, traffic_.bytes(s, d)});
      }
    }
    for (int rank = 0; rank < cluster_->ranks(); ++rank) {
      if (traffic_.from_host(rank) > 0 && names(cluster_->from_host(Rank(rank)))) {
        flows.push_back({rank, rank, traffic_.from_host(rank)});
      }
    }
    return flows;
  }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<RouteTable> table_;
  PhaseTraffic traffic_;
  std::vector<SimTime> release_, free_, finish_;
  std::vector<int64_t> bytes_;
  LonePhase lone_;
  Way way_ = Way::kFastest;
  bool together_ = false;  // All ranks are released at once.
};

// f = max(f, t) + k b, flow by flow in order of release.
TEST_P(RankFinishTest, LinksServeInOrderOfRelease) {
  RandomStream random(1, "lone_phase");
  for (int round = 0; round < 60; ++round) {
    Draw(random, round);
    for (int link = 0; link < table_->links(); ++link) {
      std::vector<Flow> flows = FlowsOn(link);
      std::stable_sort(flows.begin(), flows.end(),
                       [&](const Flow& a, const Flow& b) { return release_[a.source] < release_[b.source]; });
      double finish = static_cast<double>(free_[link].time_since_epoch().count());
      int64_t bytes = 0;
      for (const Flow& flow : flows) {
        bytes += flow.bytes;
        finish = std::max(finish, static_cast<double>(release_[flow.source].time_since_epoch().count())) +
                 traffic_.picoseconds_per_byte(link) * static_cast<double>(flow.bytes);
      }
      EXPECT_EQ(bytes_[link], bytes) << Name(cluster_->links()[link]);
      if (bytes == 0) continue;
      EXPECT_NEAR(static_cast<double>(finish_[link].time_since_epoch().count()), finish, 1)
          << Name(cluster_->links()[link]);
    }
  }
}

// The latest of what a rank hears, of its ports, and of its flows on every link.
TEST_P(RankFinishTest, RanksWaitForTheirFlows) {
  RandomStream random(1, "rank_finish");
  RankFinish rank_finish;
  for (int round = 0; round < 60; ++round) {
    Draw(random, round);
    const int ranks = cluster_->ranks();
    const std::vector<uint8_t> shared(table_->links());
    std::vector<SimTime> finish;
    rank_finish.Solve(traffic_, {release_, free_, bytes_, finish_, shared, {}}, &finish);

    std::vector<double> least(ranks), most(ranks);
    const auto count = [](SimTime t) { return static_cast<double>(t.time_since_epoch().count()); };
    for (int rank = 0; rank < ranks; ++rank) {
      least[rank] = count(release_[rank]);
      for (int other = 0; other < ranks; ++other) {
        if (other == rank) continue;
        least[rank] = std::max(least[rank], count(release_[other] + table_->latency(other, rank)));
      }
    }
    most = least;
    for (int link = 0; link < table_->links(); ++link) {
      const std::vector<Flow> flows = FlowsOn(link);
      for (const Flow& flow : flows) {
        double served = 0;
        for (const Flow& other : flows) served += static_cast<double>(std::min(other.bytes, flow.bytes));
        const double end = std::min(count(finish_[link]), std::max(count(release_[flow.source]), count(free_[link])) +
                                                              traffic_.picoseconds_per_byte(link) * served);
        const auto latency = static_cast<double>(traffic_.latency(flow.source, flow.destination).count());
        for (const int rank : {flow.source, flow.destination}) most[rank] = std::max(most[rank], end + latency);
      }
      // A port is done with all that it carries, over the shortest of its routes at the least.
      const int p = table_->port_of(link);
      if (p < 0 || flows.empty()) continue;
      const int owner = (link - table_->ports()[p].first) / 2;
      auto shortest = static_cast<double>(table_->ports()[p].latency.count());
      if (traffic_.has_from_host()) shortest = 0;
      least[owner] = std::max(least[owner], count(finish_[link]) + shortest);
      most[owner] = std::max(most[owner], least[owner]);
    }
    for (int rank = 0; rank < ranks; ++rank) {
      EXPECT_LE(count(finish[rank]), most[rank] + 1) << "round " << round << " rank " << rank;
      const bool exact = GetParam().one_latency && (together_ || table_->shared().empty());
      EXPECT_GE(count(finish[rank]), (exact ? most : least)[rank] - 1) << "round " << round << " rank " << rank;
    }
  }
}

constexpr Case kCases[] = {
    {"one_node", R"(gpus_per_node: 5 nvlink { bandwidth: "1 GB/s" latency: "90 ns" })", 5, true},
    {"nodes_across_blocks", R"(gpus_per_node: 6 nvlink { bandwidth: "4 GB/s" latency: "90 ns" }
                               nic { bandwidth: "1 GB/s" latency: "50 ns" })",
     18, true},
    {"nodes_of_a_block", R"(gpus_per_node: 8 nvlink { bandwidth: "8 GB/s" latency: "90 ns" }
                            nic { bandwidth: "1 GB/s" latency: "100 ns" })",
     24, true},
    {"wide_nodes", R"(gpus_per_node: 20 nvlink { bandwidth: "1 GB/s" latency: "90 ns" }
                      nic { bandwidth: "1 GB/s" latency: "100 ns" })",
     40, true},
    {"shared_nics", R"(gpus_per_node: 4 nvlink { bandwidth: "4 GB/s" latency: "90 ns" }
                       nic { bandwidth: "1 GB/s" latency: "100 ns" per_node: 2 })",
     16, true},
    {"leaves", R"(gpus_per_node: 4 nvlink { bandwidth: "4 GB/s" latency: "90 ns" }
                  nic { bandwidth: "1 GB/s" latency: "100 ns" }
                  fabric { leaf { nodes: 2 oversubscription: 2 latency: "30 ns" } })",
     16, false},
    {"pcie", R"(gpus_per_node: 8 pcie { bandwidth: "2 GB/s" latency: "60 ns" gpus_per_switch: 2 }
                host { memory_bandwidth: "3 GB/s" }
                nic { bandwidth: "1 GB/s" latency: "100 ns" over_pcie: true per_node: 4 })",
     16, false},
};
INSTANTIATE_TEST_SUITE_P(Platforms, RankFinishTest, ::testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace epsim
