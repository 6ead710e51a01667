// The `port` network model: every link is a server of its own.  A phase that has a link to itself takes a closed form
// (lone_phase.h); a link that phases of several streams use at once is solved as a fluid (shared_link.h), again
// whenever one joins, ends or is revised.
//
// A rank finishes a phase at the latest of
//   - the finish of each of its links that carry bytes of the phase, plus the latency of the routes over that link
//     (whether the rank sends or receives: it is done when the last byte has arrived), and
//   - the release of every other rank plus the latency of the route from there: a rank has to hear even "no tokens".
//
// Links do not wait for each other: a byte may be counted as through the incoming link while it still queues at the
// outgoing one.  On dense exchanges the busiest link decides and the error is small; on sparse ones it is a lower
// bound.
#pragma once

#include <memory>

#include "platforms/network/network.h"

namespace epsim {

// `cluster` and `queue` must outlive the network.
std::unique_ptr<Network> NewPortNetwork(const PortNetworkConfig& config, const Cluster& cluster, EventQueue* queue);

}  // namespace epsim
