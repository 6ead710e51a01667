#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/event_queue.h"
#include "engine/random_stream.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

// A dense skewed all-to-all whose ranks are released up to 50 us apart.
struct Exchange {
  Exchange(int ranks, RandomStream&& random)
      : traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)}, lateness(ranks) {
    for (int64_t& bytes : traffic.bytes) bytes = static_cast<int64_t>(random.Below(2'000'000));
    for (Duration& late : lateness) late = Duration(static_cast<int64_t>(random.Below(50'000'000)));
  }
  TrafficMatrix traffic;
  std::vector<Duration> lateness;  // [ranks]
};

// Phases one after the other, each from the matrix of bytes between ranks to the event that reports every rank's
// finish. Items are pairs of ranks.
void ExchangeAgainAndAgain(benchmark::State& state, const PlatformSpec& platform) {
  const int ranks = static_cast<int>(state.range(0));
  const auto cluster = Cluster::Create(platform, ranks);
  EPSIM_CHECK(cluster.ok());
  EventQueue queue;
  NetworkConfig config;
  config.mutable_port();
  const auto network = NewNetwork(config, *cluster, &queue);
  EPSIM_CHECK(network.ok());
  const Exchange exchange(ranks, RandomStream(1, "port_bench"));
  std::vector<SimTime> release(ranks);
  int64_t reports = 0;
  for (auto _ : state) {
    (*network)->Start(StreamId(0), exchange.traffic, release, [&](PhaseId, absl::Span<const SimTime> finish) {
      for (int rank = 0; rank < ranks; ++rank) release[rank] = finish[rank] + exchange.lateness[rank];
      ++reports;
    });
    while (!queue.empty()) queue.Step();
  }
  EPSIM_CHECK(reports == static_cast<int64_t>(state.iterations()));
  state.SetItemsProcessed(reports * ranks * ranks);
}

// 64 ranks on 8 nodes of H100, 144 ranks on two GB200 NVL72.
void AllToAllPort(benchmark::State& state) {
  const auto platform = FindPlatform(state.range(0) % 72 == 0 ? "gb200-nvl72" : "h100-sxm");
  EPSIM_CHECK(platform.ok());
  ExchangeAgainAndAgain(state, *platform);
}
BENCHMARK(AllToAllPort)->ArgName("ranks")->Arg(64)->Arg(144)->Arg(320)->Unit(benchmark::kMicrosecond);

// H100 nodes with a NIC for every two GPUs, below leaves of four nodes with half the bandwidth above them.
void AllToAllPortFabric(benchmark::State& state) {
  auto platform = FindPlatform("h100-sxm");
  EPSIM_CHECK(platform.ok());
  platform->mutable_nic()->set_per_node(4);
  platform->mutable_fabric()->mutable_leaf()->set_nodes(4);
  platform->mutable_fabric()->mutable_leaf()->set_oversubscription(2);
  ExchangeAgainAndAgain(state, *platform);
}
BENCHMARK(AllToAllPortFabric)->ArgName("ranks")->Arg(64)->Arg(144)->Unit(benchmark::kMicrosecond);

// As AllToAllPort while a migration of another stream is on every link.
void AllToAllPortShared(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const auto platform = FindPlatform("h100-sxm");
  EPSIM_CHECK(platform.ok());
  const auto cluster = Cluster::Create(*platform, ranks);
  EPSIM_CHECK(cluster.ok());
  NetworkConfig config;
  config.mutable_port();
  const Exchange exchange(ranks, RandomStream(1, "port_bench"));
  TrafficMatrix migration = exchange.traffic;
  for (int64_t& bytes : migration.bytes) bytes *= 1'000'000;
  EventQueue queue;
  const auto network = NewNetwork(config, *cluster, &queue);
  EPSIM_CHECK(network.ok());
  std::vector<SimTime> release(ranks, queue.now());
  (*network)->Start(StreamId(1), migration, release, [](PhaseId, absl::Span<const SimTime>) {});
  for (auto _ : state) {
    bool done = false;
    (*network)->Start(StreamId(0), exchange.traffic, release, [&](PhaseId, absl::Span<const SimTime> finish) {
      for (int rank = 0; rank < ranks; ++rank) release[rank] = finish[rank] + exchange.lateness[rank];
      done = true;
    });
    while (!done) queue.Step();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * ranks * ranks);
}
BENCHMARK(AllToAllPortShared)->ArgName("ranks")->Arg(64)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
