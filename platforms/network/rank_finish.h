// When each rank finishes a phase, from when the links do.
//
// A rank is done when the last of its flows is, at whichever end that is held up: a rank whose own ports are idle early
// still waits for what it sends to the busiest receiver.  On a link that finishes the phase at L, with k the time of a
// byte and b_j the bytes of the flows on it, flow i, which starts at t_i, ends at about
//   min(L, t_i + k sum_j min(b_j, b_i)):
// flows that share a link equally have all been served alike when one of them ends (exact where all start together and
// this link alone holds them up).  On a link shared with phases of other streams a flow ends not before the link's own
// solution says either.  A flow ends at the latest over the links of its route.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "engine/units.h"
#include "platforms/network/phase_traffic.h"
#include "platforms/network/shared_link.h"

namespace epsim {

// What is known of a phase before its ranks' finishes are.
struct SolvedLinks {
  absl::Span<const SimTime> release;    // [ranks]
  absl::Span<const SimTime> begin;      // [links]: when the link is free of the stream's earlier phases.
  absl::Span<const int64_t> bytes;      // [links]
  absl::Span<const SimTime> finish;     // [links]: meaningless where there are no bytes.
  absl::Span<const uint8_t> is_shared;  // [links]: with phases of other streams.
  // Where it is, the flows left on the link and their finishes; named source * ranks + destination, twice the rank for
  // what comes from its host.  [links], or empty where no link is shared.
  absl::Span<const std::vector<FlowFinish>> flows;
};

class RankFinish {
 public:
  // Fills `finish` [ranks].  Returns the class of the link that set the latest one.
  LinkClass Solve(const PhaseTraffic& traffic, const SolvedLinks& links, std::vector<SimTime>* finish);

 private:
  // A flow of a rank on a link, times in picoseconds after the first release.
  struct Candidate {
    int rank;
    double bytes, start, latency;
  };
  struct Largest {
    double bytes;
    int source;
  };
  // A link that finishes late enough to matter.
  struct Busy {
    double latest;  // With the longest latency after it, in picoseconds after the first release.
    int link;
    friend bool operator<(const Busy& a, const Busy& b) {
      return a.latest != b.latest ? a.latest < b.latest : a.link < b.link;
    }
  };

  void WaitFor(int rank, double time, LinkClass link_class) {
    if (time <= latest_[rank]) return;
    latest_[rank] = time;
    class_[rank] = link_class;
  }
  double After(SimTime time) const { return static_cast<double>((time - origin_).count()); }
  // Before which no flow of the phase starts on a link.  Where the link is shared its own solution knows.
  double Begin(int link, const SolvedLinks& links) const {
    return links.is_shared[link] ? 0 : After(links.begin[link]);
  }
  void Hear(const RouteTable& routes, absl::Span<const SimTime> release);
  void WaitForPorts(const PhaseTraffic& traffic, const SolvedLinks& links);
  void WaitForFlows(const PhaseTraffic& traffic, const SolvedLinks& links);
  // Each fills candidates_ with the flows that may end later than their ranks' finishes so far; if there are any, also
  // flows_.
  void FindOnPort(const RouteTable::Port& port, const Busy& busy, const PhaseTraffic& traffic,
                  const SolvedLinks& links);
  void FindOnLink(const Busy& busy, const PhaseTraffic& traffic, const SolvedLinks& links);

  SimTime origin_{};
  std::vector<double> release_;                    // [ranks]: in picoseconds after the first.
  std::vector<double> latest_;                     // [ranks]: finish so far, in picoseconds after the first release.
  std::vector<LinkClass> class_;                   // [ranks]: of what set it.
  std::vector<Busy> busy_;                         // A heap.
  std::vector<Largest> largest_;                   // [ranks]: to each rank on one link; no bytes between uses.
  std::vector<int> open_;                          // Ranks that finish, so far, before the link in hand.
  std::vector<double> flows_;                      // Bytes of the flows on a link.
  std::vector<std::pair<double, double>> served_;  // On it: bytes of a flow, and sum over flows of min(them, these).
  std::vector<Candidate> candidates_;
};

}  // namespace epsim
