// A network model says when transfers end, given what else is on the links.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/event_queue.h"
#include "engine/ids.h"
#include "engine/units.h"
#include "platforms/cluster.h"
#include "platforms/network/network.pb.h"

namespace epsim {

// The share of a link's bandwidth that the software which drives it achieves; in (0, 1].
struct LinkEfficiency {
  double node = 1;     // Inside a node: NVLink, PCIe, host memory.
  double network = 1;  // NICs and what is above them.
};

// Bytes from each rank to each other: bytes[source * ranks + destination]; the diagonal is ignored.
struct TrafficMatrix {
  int ranks = 0;
  std::vector<int64_t> bytes;
  Way way = Way::kFastest;
  // A byte takes 1 / efficiency of its time on each link that it crosses.  What reports count are the bytes.
  LinkEfficiency efficiency = {};
  // Bytes from the memory of its host to each rank.  [ranks], or empty: none.
  std::vector<int64_t> from_host = {};
};

enum class PhaseId : int64_t {};

// Work whose phases share a communication stream: on a link they follow each other in the order they were started.
// Phases of different streams share a link's capacity in proportion to the flows, pairs of ranks, that they have there.
enum class StreamId : int32_t {};

// A phase is one collective exchange (a dispatch, a combine) or one batch of transfers (a migration).  A rank takes
// part from its release on: it sends its row of the matrix, loads from its host, and is finished when it has heard from
// every rank that it has been released, and all that it sends and all that is sent to it has arrived.
class Network {
 public:
  // Called, as an event, at the earliest finish of the phase with every rank's finish time, and again whenever another
  // phase has changed a finish that is still to come.
  using Listener = absl::AnyInvocable<void(PhaseId, absl::Span<const SimTime> finish)>;

  virtual ~Network() = default;

  // Starts a phase.  `release` [ranks], each >= the queue's now().  `traffic` is copied or reduced before returning.
  virtual PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                        Listener listener) = 0;
  // New release times for a phase that has not yet reported, because what it waited for has changed.
  // REQUIRES: a release that is past stays as it was, and none becomes earlier than now().
  virtual void Revise(PhaseId phase, absl::Span<const SimTime> release) = 0;

  // Bytes that all phases so far have put on each link.  [links]
  virtual absl::Span<const int64_t> bytes_on_link() const = 0;
  // The class of the link that set the latest finish of the phase that reported last: of those that it crosses the one
  // that took the longest for what it carried.
  virtual LinkClass limiting_class() const = 0;
};

// `cluster` and `queue` must outlive the network, and the queue not be stepped after its end.  Fails if no model is
// chosen, and where the model is not built in or cannot take a cluster of this size.
absl::StatusOr<std::unique_ptr<Network>> NewNetwork(const NetworkConfig& config, const Cluster& cluster,
                                                    EventQueue* queue);

}  // namespace epsim
