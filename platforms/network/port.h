// The `port` network model: every link is a server of its own.  A phase that has a link to itself takes a closed form
// (lone_phase.h); a link that phases of several streams use at once is solved as a fluid (shared_link.h), again
// whenever one joins, ends or is revised.  Flows (a pair of ranks, in one phase) that are on a link at the same time
// get the same share of it, so streams share it in proportion to the flows that they have there.
//
// A rank finishes a phase at the latest of
//   - the finish of each link that is its own and carries bytes of the phase, plus the latency of the routes over it,
//   - the finish of each of its flows on every link of their routes, plus their latency (rank_finish.h), and
//   - the release of every other rank plus the latency of the route from there: a rank has to hear even "no tokens".
//
// Links do not wait for each other: a byte may be counted as through the incoming link while it still queues at the
// outgoing one.  So the last finish of a phase alone is a lower bound.  On dense exchanges the busiest link decides and
// the error is small; on sparse ones, and where some ranks are released much later than others, it can be large.
#pragma once

#include <memory>

#include "platforms/network/network.h"

namespace epsim {

// `cluster` and `queue` must outlive the network.
std::unique_ptr<Network> NewPortNetwork(const PortNetworkConfig& config, const Cluster& cluster, EventQueue* queue);

}  // namespace epsim
