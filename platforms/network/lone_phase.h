// When the links of a cluster finish a phase that has them to itself: a closed form.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/units.h"
#include "platforms/network/phase_traffic.h"

namespace epsim {

// A link serves bytes in the order they are offered, at its bandwidth, and may idle in between.  With k the time of a
// byte, t_s the release of sender s and f the time from which the link is free, a link that is offered b_s > 0 bytes by
// each s finishes at
//   max(f + k sum_s b_s,  max_s (t_s + k sum of b_j over the j with t_j >= t_s))
// (f = max(f, t_s) + k b_s over the senders in order of release, unrolled).
class LonePhase {
 public:
  // `release` [ranks]; `free` [links].  Fills `bytes` [links] and, where there are any, `finish` [links]; other
  // finishes are left alone.
  void Solve(const PhaseTraffic& traffic, absl::Span<const SimTime> release, absl::Span<const SimTime> free,
             absl::Span<int64_t> bytes, absl::Span<SimTime> finish);

 private:
  struct Sender {
    SimTime release;
    int rank;
  };
  // One sender's bytes to all.
  struct Row {
    const int64_t* bytes;
    double time;  // Its release, in picoseconds after the first.
    int near_begin, near_end;
  };
  // What the senders in `rows`, latest first, offer to neighbouring ports from that of rank `first` on.
  struct Block {
    const Row* rows;
    int count, first;
    bool near;  // If not all of a row counts: whether near destinations do, or the others.
    const double* picoseconds_per_byte;
    double *offered, *latest;  // Sums and latest finishes.
  };
  static constexpr int kBlock = 8;  // Ports.
  template <bool kMasked>
  static void OfferBlock(const Block& block);
  static void OfferBlockBaseline(const Block& block, bool masked);
  static void OfferBlockAvx2(const Block& block, bool masked);

  void OfferPorts(const PhaseTraffic& traffic, const RouteTable::Port& port);
  // The rows of ranks [begin, end), or of all others, in their order, into some_.  Returns their number.
  int ListRowsOf(int begin, int end);
  int ListRowsBut(int begin, int end);
  void OfferLink(const PhaseTraffic& traffic, int link);
  void Offer(int link, double bytes, double time, double picoseconds_per_byte) {
    offered_[link] += bytes;
    latest_[link] = std::max(latest_[link], time + picoseconds_per_byte * offered_[link]);
  }

  std::vector<Sender> order_;    // [ranks]: latest first.
  std::vector<Row> rows_;        // [ranks]: in that order.
  std::vector<Row> some_;        // [<= ranks]: those that count for a block.
  std::vector<double> offered_;  // [links]: bytes of the senders so far.
  std::vector<double> latest_;   // [links]: finish so far, in picoseconds after the first release.
  std::vector<int> place_;       // [ranks]: in order_.
  std::vector<int64_t> sent_;    // [ranks]: to one link, by the senders in that order; zero between uses.
  std::vector<int> places_;      // In order_, of some ranks.
};

}  // namespace epsim
