// What a communication library asks of links and GPUs in one collective exchange.
#pragma once

#include <vector>

#include "engine/units.h"
#include "platforms/network/network.h"

namespace epsim {

// With t[r] the release of rank r and n[r] its finish on the network, where every rank was released at t + launch, rank
// r finishes at
//   max(n[r], t[r] + floor, t[r] + launch + busy[r])
struct Exchange {
  TrafficMatrix traffic;
  Duration launch{};           // Until the first byte is on a link: prepare, launching kernels, filling pipelines.
  Duration prepare{};          // Of `launch`: a step of its own before, which tells ranks what they will receive.
  Duration floor{};            // The least that the kernels take, however little they move.
  std::vector<Duration> busy;  // [ranks]: what its SMs take to copy what the rank sends or receives.
};

// Makes `exchange` one of `ranks` ranks that takes no time; the bytes between them are still to be written.
inline void BeginExchange(int ranks, Exchange* exchange) {
  exchange->traffic.ranks = ranks;
  exchange->traffic.way = Way::kFastest;
  exchange->traffic.efficiency = {};
  exchange->traffic.from_host.clear();
  exchange->launch = exchange->prepare = exchange->floor = Duration{};
  exchange->busy.assign(ranks, Duration{});
}

// The same, and moves nothing.
inline void ClearExchange(int ranks, Exchange* exchange) {
  BeginExchange(ranks, exchange);
  exchange->traffic.bytes.assign(static_cast<size_t>(ranks) * ranks, 0);
}

// How long it takes alone on its links, every rank released at once, until the last rank has finished:
//   max(floor, launch + max over ranks of busy, launch + max over links of its bytes / (efficiency * bandwidth)
//                                                      + latency of the longest route that carries bytes)
// It is the closed form of all network models where the busiest link is busy throughout.
Duration LoneExchangeTime(const Cluster& cluster, const Exchange& exchange);

}  // namespace epsim
