#include "experiments/accuracy/exchange_clock.h"

#include <algorithm>
#include <vector>

#include "engine/status_macros.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<ExchangeClock>> ExchangeClock::Create(const NetworkConfig& config,
                                                                     const Cluster& cluster) {
  std::unique_ptr<ExchangeClock> clock(new ExchangeClock);
  clock->ranks_ = cluster.ranks();
  ASSIGN_OR_RETURN(clock->network_, NewNetwork(config, cluster, &clock->queue_));
  return clock;
}

Duration ExchangeClock::Time(const Exchange& exchange) {
  const SimTime begin = queue_.now();
  SimTime last = begin + exchange.floor;
  for (Duration busy : exchange.busy) last = std::max(last, begin + exchange.launch + busy);
  const std::vector<SimTime> release(ranks_, begin + exchange.launch);
  network_->Start(StreamId{0}, exchange.traffic, release, [&last](PhaseId, absl::Span<const SimTime> finish) {
    last = std::max(last, *std::max_element(finish.begin(), finish.end()));
  });
  while (!queue_.empty()) queue_.Step();
  // The next exchange starts when this one has left the links.
  queue_.Schedule(last, Phase::kObserve, [] {});
  queue_.Step();
  return last - begin - exchange.prepare;
}

}  // namespace epsim
