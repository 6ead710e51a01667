#include "models/communication/exchange.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

Duration LoneExchangeTime(const Cluster& cluster, const Exchange& exchange) {
  const TrafficMatrix& traffic = exchange.traffic;
  EPSIM_CHECK(traffic.ranks == cluster.ranks());
  std::vector<int64_t> bytes_on(cluster.links().size());
  Duration latency{};
  for (int source = 0; source < traffic.ranks; ++source) {
    for (int destination = 0; destination < traffic.ranks; ++destination) {
      const int64_t bytes = traffic.bytes[source * traffic.ranks + destination];
      if (bytes == 0 || source == destination) continue;
      const Route route = cluster.route(Rank(source), Rank(destination), traffic.way);
      for (Link link : route.links()) bytes_on[Index(link)] += bytes;
      latency = std::max(latency, route.latency);
    }
  }
  double busiest = 0;  // In picoseconds.
  for (size_t i = 0; i < bytes_on.size(); ++i) {
    const LinkSpec& link = cluster.links()[i];
    const bool network = link.link_class == LinkClass::kNic || link.link_class == LinkClass::kLeaf ||
                         link.link_class == LinkClass::kSpine;
    const double efficiency = network ? traffic.efficiency.network : traffic.efficiency.node;
    busiest = std::max(
        busiest, static_cast<double>(bytes_on[i]) * 1e12 / (efficiency * static_cast<double>(link.bandwidth.count())));
  }
  Duration busy{};
  for (Duration of_rank : exchange.busy) busy = std::max(busy, of_rank);
  return std::max({exchange.floor, exchange.launch + busy, exchange.launch + RoundUpWithinStep(busiest) + latency});
}

}  // namespace epsim
