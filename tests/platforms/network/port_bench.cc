#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/event_queue.h"
#include "engine/random_stream.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

// One dense skewed all-to-all, from the matrix of bytes between ranks to the event that reports every rank's finish:
// 64 ranks on 8 nodes of H100, 144 ranks on two GB200 NVL72.  Items are pairs of ranks.
void AllToAllPort(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const auto platform = FindPlatform(ranks % 72 == 0 ? "gb200-nvl72" : "h100-sxm");
  EPSIM_CHECK(platform.ok());
  const auto cluster = Cluster::Create(*platform, ranks);
  EPSIM_CHECK(cluster.ok());
  EventQueue queue;
  NetworkConfig config;
  config.mutable_port();
  const auto network = NewNetwork(config, *cluster, &queue);
  EPSIM_CHECK(network.ok());
  RandomStream random(1, "port_bench");
  TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
  for (int64_t& bytes : traffic.bytes) bytes = static_cast<int64_t>(random.Below(2'000'000));
  std::vector<Duration> lateness(ranks);
  for (Duration& late : lateness) late = Duration(static_cast<int64_t>(random.Below(50'000'000)));
  std::vector<SimTime> release(ranks);
  int64_t reports = 0;
  for (auto _ : state) {
    (*network)->Start(StreamId(0), traffic, release, [&](PhaseId, absl::Span<const SimTime> finish) {
      for (int rank = 0; rank < ranks; ++rank) release[rank] = finish[rank] + lateness[rank];
      ++reports;
    });
    while (!queue.empty()) queue.Step();
  }
  EPSIM_CHECK(reports == static_cast<int64_t>(state.iterations()));
  state.SetItemsProcessed(reports * ranks * ranks);
}
BENCHMARK(AllToAllPort)->ArgName("ranks")->Arg(64)->Arg(144)->Unit(benchmark::kMicrosecond);

// The same while a migration of another stream is on every link.
void AllToAllPortShared(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  const auto platform = FindPlatform("h100-sxm");
  const auto cluster = Cluster::Create(*platform, ranks);
  NetworkConfig config;
  config.mutable_port();
  RandomStream random(1, "port_bench");
  TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
  for (int64_t& bytes : traffic.bytes) bytes = static_cast<int64_t>(random.Below(2'000'000));
  std::vector<Duration> lateness(ranks);
  for (Duration& late : lateness) late = Duration(static_cast<int64_t>(random.Below(50'000'000)));
  TrafficMatrix migration = traffic;
  for (int64_t& bytes : migration.bytes) bytes *= 1'000'000;
  EventQueue queue;
  const auto network = NewNetwork(config, *cluster, &queue);
  std::vector<SimTime> release(ranks, queue.now());
  (*network)->Start(StreamId(1), migration, release, [](PhaseId, absl::Span<const SimTime>) {});
  for (auto _ : state) {
    bool done = false;
    (*network)->Start(StreamId(0), traffic, release, [&](PhaseId, absl::Span<const SimTime> finish) {
      for (int rank = 0; rank < ranks; ++rank) release[rank] = finish[rank] + lateness[rank];
      done = true;
    });
    while (!done) queue.Step();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * ranks * ranks);
}
BENCHMARK(AllToAllPortShared)->ArgName("ranks")->Arg(64)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
