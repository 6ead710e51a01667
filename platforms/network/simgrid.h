// The `simgrid` network model, the reference: the same flows as `max_min` (flow_network.h) in SimGrid's flow-level
// model CM02 without cross traffic (Casanova, Giersch, Legrand, Quinson, Suter: Versatile, scalable, and accurate
// simulation of distributed applications and platforms, JPDC 2014).  The cluster is built as a SimGrid platform, a link
// for each of its links and a route for each of its routes; flows have the same weight.  SimGrid's links have no
// latency and its flows no window: latencies are added to the ends of flows here, as for every other model.
//
// SimGrid knows one platform and one clock a process, so it runs in a process of its own: `epsim_simgrid`, which lies
// beside the program that uses it, one for each network.
//
// SimGrid has one capacity for a link and one weight for a flow.  Where phases use one link at once with efficiencies
// in different proportion to those of the other links of their routes, a flow takes the most that it needs on any link.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "platforms/network/network.h"

namespace epsim {

// The largest cluster that the model takes: one GB200 NVL72.
inline constexpr int kMostSimGridRanks = 72;

// About how long SimGrid takes to simulate `flows` that start together.
double EstimatedSecondsPerPhase(int flows);

// `cluster` and `queue` must outlive the network.  Fails where epsim was built without SimGrid, where its program
// cannot be run, and on clusters of more than kMostSimGridRanks.
absl::StatusOr<std::unique_ptr<Network>> NewSimGridNetwork(const SimGridNetworkConfig& config, const Cluster& cluster,
                                                           EventQueue* queue);

}  // namespace epsim
