// Do independent network models agree?  `max_min` and `simgrid` have the same flows and share them by the same rule, in
// code that has nothing in common: they agree on every rank.  `port` lets links work independently of each other: it is
// a bound, and close where traffic is dense.
#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <iostream>
#include <iterator>
#include <memory>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/event_queue.h"
#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

enum class Kind { kRandom, kHotReceivers, kHotSenders, kSparse };
enum class Wiring { kH100, kLeafSpine, kSharedNics, kPcie };
enum class Background { kNone, kMigration, kAllToAll };

const char* Name(Kind kind) {
  constexpr const char* kNames[] = {"Random", "HotReceivers", "HotSenders", "Sparse"};
  return kNames[static_cast<int>(kind)];
}
const char* Name(Wiring wiring) {
  constexpr const char* kNames[] = {"H100", "LeafSpine", "SharedNics", "Pcie"};
  return kNames[static_cast<int>(wiring)];
}
const char* Name(Background background) {
  constexpr const char* kNames[] = {"Alone", "WithMigration", "WithAllToAll"};
  return kNames[static_cast<int>(background)];
}

struct Case {
  Wiring wiring;
  int ranks;
  Kind kind;
  Background background;

  std::string name() const { return absl::StrCat(Name(kind), "On", ranks, Name(wiring), Name(background)); }
};
void PrintTo(const Case& c, std::ostream* out) { *out << c.name(); }

// Eight GPUs a node, as an H100 node has them, and variants that share links.
Cluster MakeCluster(Wiring wiring, int ranks) {
  auto platform = FindPlatform("h100-sxm");
  EXPECT_TRUE(platform.ok());
  PlatformSpec& spec = *platform;
  switch (wiring) {
    case Wiring::kH100:
      break;
    case Wiring::kLeafSpine:
      EXPECT_TRUE(SetField("fabric.wiring=RAIL_OPTIMIZED", &spec).ok());
      EXPECT_TRUE(SetField("fabric.leaf.nodes=2", &spec).ok());
      EXPECT_TRUE(SetField("fabric.leaf.oversubscription=2", &spec).ok());
      EXPECT_TRUE(SetField("fabric.leaf.latency=1 us", &spec).ok());
      EXPECT_TRUE(SetField("fabric.spine.nodes=4", &spec).ok());
      EXPECT_TRUE(SetField("fabric.spine.oversubscription=1.5", &spec).ok());
      break;
    case Wiring::kSharedNics:
      EXPECT_TRUE(SetField("nic.per_node=4", &spec).ok());
      break;
    case Wiring::kPcie:
      spec.clear_nvlink();
      EXPECT_TRUE(SetField("pcie.bandwidth=50 GB/s", &spec).ok());
      EXPECT_TRUE(SetField("pcie.latency=2 us", &spec).ok());
      EXPECT_TRUE(SetField("pcie.gpus_per_switch=4", &spec).ok());
      EXPECT_TRUE(SetField("nic.per_node=4", &spec).ok());
      EXPECT_TRUE(SetField("nic.over_pcie=true", &spec).ok());
      break;
  }
  auto cluster = Cluster::Create(spec, ranks);
  EXPECT_TRUE(cluster.ok()) << cluster.status();
  return *std::move(cluster);
}

// Up to 2 MB between any two ranks; of the r-th hottest receiver or sender divided by r^0.8; or to 1 to 4 others only.
TrafficMatrix MakeTraffic(Kind kind, int ranks, RandomStream* random) {
  std::vector<int> heat(ranks);
  for (int i = 0; i < ranks; ++i) heat[i] = i + 1;
  for (int i = ranks - 1; i > 0; --i) std::swap(heat[i], heat[random->Below(i + 1)]);
  TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
  for (int s = 0; s < ranks; ++s) {
    for (int d = 0; d < ranks; ++d) {
      const auto bytes = static_cast<int64_t>(random->Below(2'000'000));
      const auto over_heat = [&](int rank) {
        return static_cast<int64_t>(static_cast<double>(bytes) / std::pow(heat[rank], 0.8));
      };
      int64_t& entry = traffic.bytes[s * ranks + d];
      if (kind == Kind::kRandom) entry = bytes;
      if (kind == Kind::kHotReceivers) entry = over_heat(d);
      if (kind == Kind::kHotSenders) entry = over_heat(s);
    }
    if (kind != Kind::kSparse) continue;
    for (uint64_t n = 1 + random->Below(4); n > 0; --n) {
      traffic.bytes[s * ranks + static_cast<int>(random->Below(ranks))] =
          static_cast<int64_t>(random->Below(2'000'000));
    }
  }
  return traffic;
}

struct Load {
  int stream;
  int64_t start;
  TrafficMatrix traffic;
  std::vector<int64_t> release;
};
using Finishes = std::vector<std::vector<double>>;  // [loads, ranks], picoseconds, as told last.

// Fails the test, and returns nothing, where the model is not built in.
Finishes FinishesOf(const std::string& model, const Cluster& cluster, const std::vector<Load>& loads) {
  NetworkConfig config;
  EXPECT_TRUE(SetField("network=" + model, &config).ok());
  EventQueue queue;
  auto network = NewNetwork(config, cluster, &queue);
  EXPECT_TRUE(network.ok()) << network.status();
  Finishes finishes(loads.size());
  for (size_t i = 0; i < loads.size(); ++i) {
    queue.Schedule(SimTime(Duration(loads[i].start)), Phase::kComplete, [&, i] {
      std::vector<SimTime> release;
      for (int64_t t : loads[i].release) release.push_back(SimTime(Duration(t)));
      (*network)->Start(StreamId(loads[i].stream), loads[i].traffic, release,
                        [&, i](PhaseId, absl::Span<const SimTime> told) {
                          finishes[i].clear();
                          for (SimTime t : told)
                            finishes[i].push_back(static_cast<double>(t.time_since_epoch().count()));
                        });
    });
  }
  while (!queue.empty()) queue.Step();
  return finishes;
}

double Last(const std::vector<double>& finish) { return *std::max_element(finish.begin(), finish.end()); }
double Last(const Finishes& finishes) {
  double last = 0;
  for (const auto& finish : finishes) last = std::max(last, Last(finish));
  return last;
}

// What shares the network: another stream that starts when about half of `foreground` is through.
std::vector<Load> WithBackground(Background background, const Cluster& cluster, Load foreground, RandomStream* random) {
  std::vector<Load> loads = {std::move(foreground)};
  if (background == Background::kNone) return loads;
  const int ranks = cluster.ranks();
  const auto half = static_cast<int64_t>(Last(FinishesOf("max_min", cluster, loads)) / 2);
  Load other{1, half, {ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)}, {}};
  other.release.assign(ranks, half);
  // Half as efficient; in the proportion that SimGrid can express (simgrid.h).
  other.traffic.efficiency = {.node = loads[0].traffic.efficiency.node / 2,
                              .network = loads[0].traffic.efficiency.network / 2};
  if (background == Background::kAllToAll) {
    other.traffic.bytes = MakeTraffic(Kind::kRandom, ranks, random).bytes;
  } else {
    // Every rank sends a few experts to one other.
    for (int s = 0; s < ranks; ++s) other.traffic.bytes[s * ranks + (s + ranks / 2) % ranks] = 10'000'000;
  }
  loads.push_back(std::move(other));
  return loads;
}

Load AtOnce(TrafficMatrix traffic) {
  const int ranks = traffic.ranks;
  return {0, 0, std::move(traffic), std::vector<int64_t>(ranks)};
}

bool HasSimGrid() {
  const Cluster cluster = MakeCluster(Wiring::kH100, 8);
  NetworkConfig config;
  config.mutable_simgrid();
  EventQueue queue;
  return !absl::IsUnimplemented(NewNetwork(config, cluster, &queue).status());
}

class FlowsDifferentialTest : public ::testing::TestWithParam<Case> {
 protected:
  void SetUp() override {
    if (!HasSimGrid()) GTEST_SKIP() << "built without SimGrid";
  }
};

void ExpectSame(const Finishes& a, const Finishes& b) {
  for (size_t i = 0; i < b.size(); ++i) {
    for (size_t rank = 0; rank < b[i].size(); ++rank) {
      EXPECT_NEAR(a[i][rank], b[i][rank], 0.001 * b[i][rank]) << "phase " << i << " rank " << rank;
    }
  }
}

// Required: every rank within 0.1 %.  Measured: within 1 ps.
TEST_P(FlowsDifferentialTest, MaxMinIsSimGrid) {
  const Case& c = GetParam();
  const Cluster cluster = MakeCluster(c.wiring, c.ranks);
  RandomStream random(1, c.name());
  Load load = AtOnce(MakeTraffic(c.kind, c.ranks, &random));
  for (int64_t& release : load.release) release = static_cast<int64_t>(random.Below(20'000'000));
  if (cluster.platform().has_pcie()) {
    for (int i = 0; i < c.ranks; ++i) load.traffic.from_host.push_back(static_cast<int64_t>(random.Below(2'000'000)));
  }
  load.traffic.efficiency = {.node = 0.8, .network = 0.9};
  const std::vector<Load> loads = WithBackground(c.background, cluster, std::move(load), &random);
  ExpectSame(FinishesOf("max_min", cluster, loads), FinishesOf("simgrid", cluster, loads));
}

std::vector<Case> FlowCases() {
  std::vector<Case> cases;
  for (Kind kind : {Kind::kRandom, Kind::kHotReceivers, Kind::kHotSenders, Kind::kSparse}) {
    for (int ranks : {8, 16, 32}) {
      for (Background background : {Background::kNone, Background::kMigration, Background::kAllToAll}) {
        cases.push_back({Wiring::kH100, ranks, kind, background});
      }
    }
    for (Wiring wiring : {Wiring::kLeafSpine, Wiring::kSharedNics, Wiring::kPcie}) {
      cases.push_back({wiring, 32, kind, Background::kNone});
      cases.push_back({wiring, 32, kind, Background::kMigration});
    }
    cases.push_back({Wiring::kH100, 64, kind, Background::kNone});
  }
  cases.push_back({Wiring::kH100, 64, Kind::kHotReceivers, Background::kMigration});
  cases.push_back({Wiring::kLeafSpine, 64, Kind::kHotReceivers, Background::kNone});
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Traffic, FlowsDifferentialTest, ::testing::ValuesIn(FlowCases()),
                         [](const auto& info) { return info.param.name(); });

// The relative differences of `port` from the truth, over several matrices.
struct Differences {
  // Of all phases together; of the one in the foreground; of its ranks, without sign.
  std::vector<double> makespan, foreground, rank;

  void Add(const Finishes& port, const Finishes& truth) {
    makespan.push_back(Last(port) / Last(truth) - 1);
    foreground.push_back(Last(port[0]) / Last(truth[0]) - 1);
    for (size_t rank_index = 0; rank_index < truth[0].size(); ++rank_index) {
      rank.push_back(std::abs(port[0][rank_index] / truth[0][rank_index] - 1));
    }
  }
  static double Quantile(std::vector<double> values, double share) {
    std::sort(values.begin(), values.end());
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  }
  std::string text() const {
    const auto list = [](const std::vector<double>& values, std::initializer_list<double> shares) {
      std::string text;
      for (double share : shares) absl::StrAppend(&text, " ", 100 * Quantile(values, share));
      return text;
    };
    return absl::StrCat(makespan.size(),
                        " matrices, in %: makespan, least, 5th, median, most:", list(makespan, {0, 0.05, 0.5, 1}),
                        "; foreground:", list(foreground, {0, 0.05, 0.5, 1}),
                        "; ranks, median, 90th, most:", list(rank, {0.5, 0.9, 1}));
  }
};

// Rounding: a picosecond for each phase.
constexpr double kRounding = 1e-8;

struct Bounds {
  double makespan;            // How far it may be below,
  double share = 1;           // in this share of the matrices.
  double foreground = 1;      // How far the phase in the foreground may be off.
  double median_rank = 0.01;  // Half of the ranks are closer than this,
  double most_ranks = 0.1;    // and nine in ten than this.
};

void ExpectClose(const Differences& differences, const Bounds& bounds) {
  ::testing::Test::RecordProperty("differences", differences.text());
  std::cout << differences.text() << "\n";
  EXPECT_LE(Differences::Quantile(differences.makespan, 1), kRounding);
  EXPECT_GE(Differences::Quantile(differences.makespan, 1 - bounds.share), -bounds.makespan);
  for (double difference : differences.foreground) EXPECT_LE(std::abs(difference), bounds.foreground);
  EXPECT_LE(Differences::Quantile(differences.rank, 0.5), bounds.median_rank);
  EXPECT_LE(Differences::Quantile(differences.rank, 0.9), bounds.most_ranks);
}

class PortDifferentialTest : public ::testing::TestWithParam<Case> {};

// The makespan is that of all phases together: never above, and within 1 % alone and 5 % with background.  On 32 ranks
// and more that holds for every matrix.  On 8 ranks the last flow of the busiest link may have been held up elsewhere:
// measured over 400 matrices of each kind, 1 in 50 to 1 in 100 is 1 % to 6 % below.
//
// Which of two phases that share links ends first is less certain than when both have ended: on 8 ranks the foreground
// is up to 15 % early or 7 % late in the worst of 100 matrices, on 32 and more 2 %.
//
// Behind PCIe switches whose uplinks several ranks share, half of the ranks are within 1.5 %, not 1 %.
TEST_P(PortDifferentialTest, PortIsACloseBoundOnDenseTraffic) {
  const Case& c = GetParam();
  const Cluster cluster = MakeCluster(c.wiring, c.ranks);
  RandomStream random(1, c.name());
  Differences differences;
  for (int round = 0; round < (c.ranks > 32 ? 2 : c.ranks > 16 ? 20 : 100); ++round) {
    const Load load = AtOnce(MakeTraffic(c.kind, c.ranks, &random));
    const std::vector<Load> loads = WithBackground(c.background, cluster, load, &random);
    differences.Add(FinishesOf("port", cluster, loads), FinishesOf("max_min", cluster, loads));
  }
  Bounds bounds{.makespan = c.background == Background::kNone ? 0.01 : 0.05};
  if (c.ranks < 32) {
    bounds.share = 0.95;
  } else {
    bounds.foreground = bounds.makespan;
  }
  if (c.wiring == Wiring::kPcie) bounds.median_rank = 0.02;
  ExpectClose(differences, bounds);
}

std::vector<Case> DenseCases() {
  std::vector<Case> cases;
  for (Kind kind : {Kind::kRandom, Kind::kHotReceivers, Kind::kHotSenders}) {
    for (int ranks : {8, 16, 32, 64}) {
      for (Background background : {Background::kNone, Background::kMigration, Background::kAllToAll}) {
        cases.push_back({Wiring::kH100, ranks, kind, background});
      }
    }
    for (Wiring wiring : {Wiring::kLeafSpine, Wiring::kSharedNics, Wiring::kPcie}) {
      cases.push_back({wiring, 32, kind, Background::kNone});
    }
    cases.push_back({Wiring::kH100, 144, kind, Background::kNone});
  }
  return cases;
}
INSTANTIATE_TEST_SUITE_P(Traffic, PortDifferentialTest, ::testing::ValuesIn(DenseCases()),
                         [](const auto& info) { return info.param.name(); });

// Rank 0 is held up at both of its receivers and cannot make up for it later (worked in flow_network_test.cc): 16 where
// every link alone would be done at 12.
TEST(SparseDifferentialTest, WhatIndependentLinksMiss) {
  PlatformSpec platform;
  ASSERT_TRUE(ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" bf16: "1 TFLOP/s" }
                                gpus_per_node: 9
                                nvlink { bandwidth: "1 GB/s" latency: "0 ns" })",
                             "platform", &platform)
                  .ok());
  const auto cluster = Cluster::Create(platform, 9);
  ASSERT_TRUE(cluster.ok()) << cluster.status();
  TrafficMatrix traffic{9, std::vector<int64_t>(81)};
  traffic.bytes[0 * 9 + 1] = traffic.bytes[0 * 9 + 2] = 6;
  for (int s : {3, 4, 5}) traffic.bytes[s * 9 + 1] = 2;
  for (int s : {6, 7, 8}) traffic.bytes[s * 9 + 2] = 2;
  const std::vector<Load> loads = {AtOnce(traffic)};
  EXPECT_EQ(Last(FinishesOf("port", *cluster, loads)), 12'000);
  EXPECT_EQ(Last(FinishesOf("max_min", *cluster, loads)), 16'000);
  if (!HasSimGrid()) GTEST_SKIP() << "built without SimGrid";
  EXPECT_EQ(Last(FinishesOf("simgrid", *cluster, loads)), 16'000);
}

class SparseGapTest : public ::testing::TestWithParam<int> {};

// How far the bound is from the truth where every rank sends to 1 to 4 others.  Measured over 200 matrices: nine in ten
// have the makespan exactly; the 99th percentile is 3.8 %, 4.2 %, 1.0 % and 0.4 % below on 8, 16, 32 and 64 ranks, the
// worst 6.3 %, 8.7 %, 4.6 % and 1.3 %.
TEST_P(SparseGapTest, PortIsABound) {
  const int ranks = GetParam();
  const Cluster cluster = MakeCluster(Wiring::kH100, ranks);
  RandomStream random(1, "sparse");
  Differences differences;
  for (int round = 0; round < 200; ++round) {
    const std::vector<Load> loads = {AtOnce(MakeTraffic(Kind::kSparse, ranks, &random))};
    differences.Add(FinishesOf("port", cluster, loads), FinishesOf("max_min", cluster, loads));
  }
  std::string gap = "makespan below max_min's by %:";
  for (double share : {0.5, 0.75, 0.9, 0.99, 1.0}) {
    absl::StrAppend(&gap, " ", 100 * share, "th ", -100 * Differences::Quantile(differences.makespan, 1 - share));
  }
  RecordProperty("gap", gap);
  std::cout << gap << "\n";
  ExpectClose(differences, {.makespan = 0.05, .share = 0.99});
}
INSTANTIATE_TEST_SUITE_P(Ranks, SparseGapTest, ::testing::Values(8, 16, 32, 64),
                         [](const auto& info) { return absl::StrCat(info.param); });

class LargeGroupTest : public ::testing::TestWithParam<int> {};

// A decode step of many ranks: each has 4 tokens that go to 8 ranks, one copy of 14,336 B each.  Of such groups `port`
// follows only the busiest links to the ranks that they delay.
TEST_P(LargeGroupTest, RanksOfADecodeStepAreClose) {
  const int ranks = GetParam();
  const Cluster cluster = MakeCluster(Wiring::kH100, ranks);
  RandomStream random(1, "large_group");
  Differences differences;
  for (int round = 0; round < 3; ++round) {
    TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
    for (int s = 0; s < ranks; ++s) {
      for (int copy = 0; copy < 4 * 8; ++copy) {
        const int d = static_cast<int>(random.Below(ranks));
        if (d != s) traffic.bytes[s * ranks + d] += 14'336;
      }
    }
    const std::vector<Load> loads = {AtOnce(traffic)};
    differences.Add(FinishesOf("port", cluster, loads), FinishesOf("max_min", cluster, loads));
  }
  ExpectClose(differences, {.makespan = 0.05});
}
INSTANTIATE_TEST_SUITE_P(Ranks, LargeGroupTest, ::testing::Values(64, 144, 320),
                         [](const auto& info) { return absl::StrCat(info.param); });

// A captured trace: [tokens, layers, top_k] expert ids of one byte each.
struct Capture {
  const char* name;
  int experts, hidden_bytes;
};
void PrintTo(const Capture& capture, std::ostream* out) { *out << capture.name; }

struct Routing {
  std::vector<int64_t> shape;
  std::string ids;
};

// Reads a NumPy file of bytes: the magic and version, the length of the header, the header, the array.
Routing ReadRouting(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text((std::istreambuf_iterator<char>(file)), {});
  Routing routing;
  const size_t header = 10 + static_cast<uint8_t>(text.at(8)) + 256 * static_cast<uint8_t>(text.at(9));
  EXPECT_NE(text.substr(0, header).find("'|u1'"), std::string::npos);
  for (size_t at = text.find('(') + 1; at < header && text[at] != ')';) {
    size_t length = 0;
    routing.shape.push_back(std::stoll(text.substr(at), &length));
    at = text.find_first_not_of(", ", at + length);
  }
  routing.ids = text.substr(header);
  return routing;
}

// The dispatch of a batch of 64 tokens a rank in one layer: a token goes once to every rank that has one of its
// experts.
TrafficMatrix Dispatch(const Routing& routing, const Capture& capture, int ranks, int layer, int64_t first_token) {
  const int64_t layers = routing.shape[1], top_k = routing.shape[2];
  TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
  for (int64_t i = 0; i < 64 * ranks; ++i) {
    const int64_t token = (first_token + i) % routing.shape[0];
    std::vector<uint8_t> sent(ranks);
    for (int64_t k = 0; k < top_k; ++k) {
      const auto expert = static_cast<uint8_t>(routing.ids[(token * layers + layer) * top_k + k]);
      sent[expert * ranks / capture.experts] = true;
    }
    for (int d = 0; d < ranks; ++d) traffic.bytes[i / 64 * ranks + d] += sent[d] ? capture.hidden_bytes : 0;
  }
  return traffic;
}

class TraceDifferentialTest : public ::testing::TestWithParam<Capture> {};

TEST_P(TraceDifferentialTest, ModelsAgreeOnCapturedRouting) {
  const Capture& capture = GetParam();
  const std::string path = absl::StrCat(EPSIM_SHARED_DATA "/traces/", capture.name, "/routed_experts.npy");
  if (!std::ifstream(path)) GTEST_SKIP() << "not there: " << path;
  const Routing routing = ReadRouting(path);
  ASSERT_EQ(routing.shape.size(), 3);
  const bool simgrid = HasSimGrid();
  for (Background background : {Background::kNone, Background::kMigration, Background::kAllToAll}) {
    Differences differences;
    RandomStream random(1, capture.name);
    for (int ranks = 8; ranks <= std::min(64, capture.experts); ranks *= 2) {
      const Cluster cluster = MakeCluster(Wiring::kH100, ranks);
      for (int layer : {0, 11, 23}) {
        const Load load = AtOnce(Dispatch(routing, capture, ranks, layer, 1000 * layer));
        const std::vector<Load> loads = WithBackground(background, cluster, load, &random);
        const Finishes truth = FinishesOf("max_min", cluster, loads);
        if (simgrid && layer == 11 && (ranks < 64 || background == Background::kNone))
          ExpectSame(truth, FinishesOf("simgrid", cluster, loads));
        differences.Add(FinishesOf("port", cluster, loads), truth);
      }
    }
    SCOPED_TRACE(Name(background));
    ExpectClose(differences, {.makespan = background == Background::kNone ? 0.01 : 0.05});
  }
}
INSTANTIATE_TEST_SUITE_P(Captures, TraceDifferentialTest,
                         ::testing::Values(Capture{"gpt-oss-20b-decode", 32, 2 * 2880},
                                           Capture{"deepseek-v2-lite-summary", 64, 2 * 2048},
                                           Capture{"qwen3-30b-a3b-prefill-steps", 128, 2 * 2048}),
                         [](const auto& info) {
                           std::string name = info.param.name;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace epsim
