// One dense skewed all-to-all, flow by flow, as AllToAllPort: from the matrix of bytes between ranks to the event that
// reports every rank's finish.  Items are pairs of ranks.
#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/event_queue.h"
#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {
namespace {

class AllToAll {
 public:
  AllToAll(const std::string& model, int ranks)
      : cluster_(ClusterOf(ranks)), traffic_{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)} {
    NetworkConfig config;
    EPSIM_CHECK(SetField("network=" + model, &config).ok());
    auto network = NewNetwork(config, cluster_, &queue_);
    status_ = network.status();
    if (network.ok()) network_ = *std::move(network);
    RandomStream random(1, "port_bench");
    for (int64_t& bytes : traffic_.bytes) bytes = static_cast<int64_t>(random.Below(2'000'000));
  }
  const absl::Status& status() const { return status_; }

  // A phase from the release of all ranks at one instant to its end.
  void Run() {
    bool reported = false;
    const std::vector<SimTime> release(cluster_.ranks(), queue_.now());
    network_->Start(StreamId(0), traffic_, release, [&](PhaseId, absl::Span<const SimTime> finish) {
      reported = true;
      queue_.Schedule(*std::max_element(finish.begin(), finish.end()), Phase::kObserve, [] {});
    });
    while (!queue_.empty()) queue_.Step();
    EPSIM_CHECK(reported);
  }

 private:
  static Cluster ClusterOf(int ranks) {
    const auto platform = FindPlatform("h100-sxm");
    EPSIM_CHECK(platform.ok());
    auto cluster = Cluster::Create(*platform, ranks);
    EPSIM_CHECK(cluster.ok());
    return *std::move(cluster);
  }

  const Cluster cluster_;
  EventQueue queue_;
  absl::Status status_;
  std::unique_ptr<Network> network_;
  TrafficMatrix traffic_;
};

void AllToAllMaxMin(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  AllToAll phase("max_min", ranks);
  for (auto _ : state) phase.Run();
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * ranks * ranks);
}
BENCHMARK(AllToAllMaxMin)->ArgName("ranks")->Arg(64)->Unit(benchmark::kMicrosecond);

// SimGrid runs in a process of its own, whose time the benchmark would not see: this one waits actively, so that the
// number of iterations follows from the time that passes.
void AllToAllSimGrid(benchmark::State& state) {
  const int ranks = static_cast<int>(state.range(0));
  AllToAll phase("simgrid", ranks);
  if (!phase.status().ok()) {
    state.SkipWithError(std::string(phase.status().message()).c_str());
    return;
  }
  for (auto _ : state) {
    std::atomic<bool> done = false;
    std::thread run([&] {
      phase.Run();
      done = true;
    });
    while (!done) {
    }
    run.join();
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()) * ranks * ranks);
}
BENCHMARK(AllToAllSimGrid)->ArgName("ranks")->Arg(64)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
