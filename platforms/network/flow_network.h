// A network whose traffic is flows: every nonzero entry of a phase's matrix is one, and so is every load from a host.
// How they share the links is a FlowModel's to say; this keeps the phases.  Whenever one starts or is revised, the
// flows under way are brought up to that time and run again to their ends.
//
// A rank finishes a phase at the latest of
//   - the end of each of its flows, in or out, plus the latency of that flow's route, and
//   - the release of every other rank plus the latency of the route from there: a rank has to hear even "no tokens".
#pragma once

#include <memory>

#include "platforms/network/flow.h"
#include "platforms/network/network.h"

namespace epsim {

// `cluster` and `queue` must outlive the network.
std::unique_ptr<Network> NewFlowNetwork(const Cluster& cluster, EventQueue* queue, std::unique_ptr<FlowModel> model);

}  // namespace epsim
