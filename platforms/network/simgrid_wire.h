// What the `simgrid` network model and the process that runs SimGrid send each other: plain structures over a socket,
// between two programs of one build.  First the platform: SimGridPlatform, the bandwidths of its links (double) and its
// routes (SimGridRoute).  Then, any number of times, a SimGridRun with its flows (Flow), answered by the work that
// is left of each flow and the time at which each ended (double, both [flows]).
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "platforms/network/flow.h"

namespace epsim {

// A place where flows begin and end: three for each rank.
struct SimGridStations {
  int from, to;
};
inline constexpr int kStationsPerRank = 3;
// A pair of stations has one route, so a rank that is reached over the network at any rate is a station of its own, and
// so is the memory of its host.
inline SimGridStations StationsOf(int source, int destination, Way way) {
  const int from = source == Flow::kFromHost ? kStationsPerRank * destination + 2 : kStationsPerRank * source;
  return {from, kStationsPerRank * destination + (way == Way::kNetwork ? 1 : 0)};
}

struct SimGridPlatform {
  int64_t stations, links, routes;
};
struct SimGridRoute {
  int32_t from, to;
  int64_t link_count;
  std::array<int32_t, Route::kMostLinks> links;
};
struct SimGridRun {
  int64_t flows;
  SimTime from;
  double until;  // Picoseconds after `from`, or kNotEnded: to the end of all.
};

static_assert(std::is_trivially_copyable_v<Flow> && std::is_trivially_copyable_v<SimGridRun>);

// Sends or receives `size` bytes; false if the other side has gone.
bool SendAll(int socket, const void* data, size_t size);
bool ReceiveAll(int socket, void* data, size_t size);

}  // namespace epsim
