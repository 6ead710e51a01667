// A flow is the bytes of one phase from one rank to another, or from the memory of a host to a rank.  It takes all
// links of its route at once: what it sends leaves and arrives at one rate.
#pragma once

#include <array>
#include <cstdint>
#include <limits>
#include <optional>

#include "absl/types/span.h"
#include "engine/ids.h"
#include "engine/units.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {

// A link of a flow's route, and the time that a unit of the flow's work takes on it alone.
struct FlowLink {
  Link link;
  double picoseconds;
};

struct Flow {
  static constexpr int kFromHost = -1;

  PhaseId phase;
  StreamId stream;
  int source;  // A rank, or kFromHost.
  int destination;
  Way way;
  SimTime release;
  // What is left to send: bytes over the efficiency of the first link of the route.  Flows share the time of a link, so
  // their rates are in work.
  double work;
  std::array<FlowLink, Route::kMostLinks> links_of_route;
  size_t link_count = 0;

  absl::Span<const FlowLink> links() const { return {links_of_route.data(), link_count}; }
};

inline constexpr double kNotEnded = std::numeric_limits<double>::infinity();

// How flows that are there at the same time share the links.
class FlowModel {
 public:
  virtual ~FlowModel() = default;

  // Lets `flows` go from `from` on, each from its release, in the order of their streams (flow_order.h).  Stops when
  // all have ended or at `until`.  Brings every flow's `work` to what is left then, and fills `end` [flows]: the
  // picoseconds after `from` at which each ended, or kNotEnded.  REQUIRES: phases in the order they were started.
  virtual void Run(SimTime from, std::optional<SimTime> until, absl::Span<Flow> flows, absl::Span<double> end) = 0;
  // Picoseconds by which two runs may differ through rounding alone.
  virtual double rounding() const = 0;
};

}  // namespace epsim
