// What every network model promises, whatever its assumptions: each alternative of NetworkConfig is tried.
#include <algorithm>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/event_queue.h"
#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

std::vector<std::string> Models() {
  std::vector<std::string> names;
  const auto* oneof = NetworkConfig::descriptor()->FindOneofByName("network");
  for (int i = 0; i < oneof->field_count(); ++i) names.push_back(oneof->field(i)->name());
  return names;
}

struct Load {
  int stream;
  TrafficMatrix traffic;
  std::vector<SimTime> release;
};
struct Outcome {
  std::vector<std::vector<SimTime>> finish;  // [phases, ranks], as told last.
  std::vector<int64_t> bytes_on_link;
};

class NetworkContractTest : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr int kPerNode = 4;

  Cluster MakeCluster(int ranks, int faster = 1) const {
    PlatformSpec platform;
    EXPECT_TRUE(ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" bf16: "1 TFLOP/s" }
                                  nvlink { latency: "3.33 us" }
                                  nic { latency: "2.8 us" })",
                               "platform", &platform)
                    .ok());
    platform.set_gpus_per_node(kPerNode);
    platform.mutable_nvlink()->set_bandwidth(std::to_string(200 * faster) + " GB/s");
    platform.mutable_nic()->set_bandwidth(std::to_string(50 * faster) + " GB/s");
    auto cluster = Cluster::Create(platform, ranks);
    EXPECT_TRUE(cluster.ok()) << cluster.status();
    return *std::move(cluster);
  }

  // Starts all loads at time 0, in order, and runs until nothing is to come.
  Outcome Run(const Cluster& cluster, const std::vector<Load>& loads) const {
    NetworkConfig config;
    EXPECT_TRUE(SetField("network=" + GetParam(), &config).ok());
    EventQueue queue;
    auto network = NewNetwork(config, cluster, &queue);
    EXPECT_TRUE(network.ok()) << network.status();
    Outcome outcome;
    outcome.finish.resize(loads.size());
    for (size_t i = 0; i < loads.size(); ++i) {
      (*network)->Start(StreamId(loads[i].stream), loads[i].traffic, loads[i].release,
                        [&, i](PhaseId, absl::Span<const SimTime> finish) {
                          const SimTime earliest = *std::min_element(finish.begin(), finish.end());
                          EXPECT_LE(earliest, queue.now());
                          outcome.finish[i].assign(finish.begin(), finish.end());
                        });
    }
    while (!queue.empty()) queue.Step();
    outcome.bytes_on_link.assign((*network)->bytes_on_link().begin(), (*network)->bytes_on_link().end());
    return outcome;
  }

  Load RandomLoad(RandomStream& random, int ranks, int stream) const {
    Load load{stream, {ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)}, {}};
    for (int64_t& bytes : load.traffic.bytes) {
      bytes = random.Below(4) == 0 ? 0 : static_cast<int64_t>(random.Below(2'000'000));
    }
    for (int rank = 0; rank < ranks; ++rank) {
      load.release.push_back(SimTime(Duration(static_cast<int64_t>(random.Below(30'000'000)))));
    }
    return load;
  }
};

TEST_P(NetworkContractTest, BytesOutAreBytesInAreTheMatrix) {
  RandomStream random(1, "balance");
  for (int ranks : {1, 3, 4, 8, 16}) {
    const Cluster cluster = MakeCluster(ranks);
    const std::vector<Load> loads = {RandomLoad(random, ranks, 0), RandomLoad(random, ranks, 1)};
    const Outcome outcome = Run(cluster, loads);
    int64_t out = 0, in = 0, matrix = 0;
    for (size_t link = 0; link < cluster.links().size(); ++link) {
      (cluster.links()[link].outgoing ? out : in) += outcome.bytes_on_link[link];
    }
    for (const Load& load : loads) {
      for (int i = 0; i < ranks * ranks; ++i) matrix += i / ranks == i % ranks ? 0 : load.traffic.bytes[i];
    }
    EXPECT_EQ(out, matrix);
    EXPECT_EQ(in, matrix);
  }
}

// No rank finishes before the last release, nor before its busiest link could have carried its bytes.
TEST_P(NetworkContractTest, EffectsFollowCauses) {
  RandomStream random(1, "causality");
  for (int ranks : {1, 4, 8}) {
    const Cluster cluster = MakeCluster(ranks);
    const std::vector<Load> loads = {RandomLoad(random, ranks, 0), RandomLoad(random, ranks, 1)};
    const Outcome outcome = Run(cluster, loads);
    for (size_t i = 0; i < loads.size(); ++i) {
      const SimTime last = *std::max_element(loads[i].release.begin(), loads[i].release.end());
      for (int rank = 0; rank < ranks; ++rank) {
        EXPECT_GE(outcome.finish[i][rank], last);
        for (int other = 0; other < ranks; ++other) {
          if (other == rank) continue;
          const Route route = cluster.route(Rank(other), Rank(rank));
          const Bytes bytes(loads[i].traffic.bytes[other * ranks + rank]);
          EXPECT_GE(outcome.finish[i][rank], loads[i].release[other] + route.latency +
                                                 bytes / cluster.links()[Index(route.links()[0])].bandwidth);
        }
      }
    }
  }
}

TEST_P(NetworkContractTest, TwiceTheBandwidthIsNeverSlower) {
  RandomStream random(1, "bandwidth");
  for (int round = 0; round < 20; ++round) {
    const std::vector<Load> loads = {RandomLoad(random, 8, 0), RandomLoad(random, 8, 0), RandomLoad(random, 8, 1)};
    const Outcome slow = Run(MakeCluster(8), loads), fast = Run(MakeCluster(8, 2), loads);
    for (size_t i = 0; i < loads.size(); ++i) {
      for (int rank = 0; rank < 8; ++rank) EXPECT_LE(fast.finish[i][rank], slow.finish[i][rank]);
    }
  }
}

// Only what two ranks share a node matters: other names inside the nodes, and other names of nodes, the same finishes.
TEST_P(NetworkContractTest, NamesOfRanksDoNotMatter) {
  RandomStream random(1, "names");
  const std::vector<int> renamed = {6, 4, 7, 5, 1, 0, 2, 3};
  for (int round = 0; round < 20; ++round) {
    std::vector<Load> loads = {RandomLoad(random, 8, 0), RandomLoad(random, 8, 1)}, other = loads;
    for (size_t i = 0; i < loads.size(); ++i) {
      for (int s = 0; s < 8; ++s) {
        other[i].release[renamed[s]] = loads[i].release[s];
        for (int d = 0; d < 8; ++d) {
          other[i].traffic.bytes[renamed[s] * 8 + renamed[d]] = loads[i].traffic.bytes[s * 8 + d];
        }
      }
    }
    const Outcome a = Run(MakeCluster(8), loads), b = Run(MakeCluster(8), other);
    for (size_t i = 0; i < loads.size(); ++i) {
      for (int rank = 0; rank < 8; ++rank) EXPECT_EQ(b.finish[i][renamed[rank]], a.finish[i][rank]);
    }
  }
}

// Which of two streams is started first at an instant does not matter.
TEST_P(NetworkContractTest, OrderOfStreamsDoesNotMatter) {
  RandomStream random(1, "order");
  for (int round = 0; round < 20; ++round) {
    const std::vector<Load> loads = {RandomLoad(random, 8, 0), RandomLoad(random, 8, 1), RandomLoad(random, 8, 2)};
    const Outcome a = Run(MakeCluster(8), loads), b = Run(MakeCluster(8), {loads[2], loads[0], loads[1]});
    EXPECT_EQ(a.finish[0], b.finish[1]);
    EXPECT_EQ(a.finish[1], b.finish[2]);
    EXPECT_EQ(a.finish[2], b.finish[0]);
    EXPECT_EQ(a.bytes_on_link, b.bytes_on_link);
  }
}

// All flows end at rank 0, so that one link decides: another stream's traffic never speeds a rank up, and neither does
// a later release the last one.  (Where several links decide, more load on one flow may leave room for another.)
TEST_P(NetworkContractTest, MoreLoadOnALinkIsNeverFaster) {
  RandomStream random(1, "load");
  const Cluster cluster = MakeCluster(kPerNode);
  const auto to_rank_0 = [&](int stream) {
    Load load = RandomLoad(random, kPerNode, stream);
    for (int i = 0; i < kPerNode * kPerNode; ++i) {
      if (i % kPerNode != 0) load.traffic.bytes[i] = 0;
    }
    return load;
  };
  for (int round = 0; round < 20; ++round) {
    const Load load = to_rank_0(0), other = to_rank_0(1);
    Load later = load;
    later.release[random.Below(kPerNode)] += Duration(5'000'000);
    const Outcome alone = Run(cluster, {load}), with = Run(cluster, {load, other}), late = Run(cluster, {later});
    for (int rank = 0; rank < kPerNode; ++rank) EXPECT_GE(with.finish[0][rank], alone.finish[0][rank]);
    EXPECT_GE(*std::max_element(late.finish[0].begin(), late.finish[0].end()),
              *std::max_element(alone.finish[0].begin(), alone.finish[0].end()));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryModel, NetworkContractTest, ::testing::ValuesIn(Models()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace epsim
