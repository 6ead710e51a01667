// When the links of a cluster finish a phase that has them to itself: a closed form.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/units.h"
#include "platforms/network/lanes.h"
#include "platforms/network/network.h"

namespace epsim {

// A lane serves bytes in the order they are offered, at its bandwidth, and may idle in between.  With k the time of a
// byte, t_s the release of sender s and f the time from which the lane is free, a lane that is offered b_s > 0 bytes by
// each s finishes at
//   max(f + k sum_s b_s,  max_s (t_s + k sum of b_j over the j with t_j >= t_s))
// (f = max(f, t_s) + k b_s over the senders in order of release, unrolled).  An outgoing lane has one sender, its rank.
class LonePhase {
 public:
  // `lanes` must outlive this.
  explicit LonePhase(const Lanes& lanes);

  // `traffic` [ranks, ranks] bytes; `release` [ranks]; `free` [lanes].  Fills `bytes` [lanes] and, where there are any,
  // `finish` [lanes]; other finishes are left alone.
  // REQUIRES: 0 <= bytes < 2^52, and none from a rank to itself.
  void Solve(absl::Span<const int64_t> traffic, absl::Span<const SimTime> release, absl::Span<const SimTime> free,
             absl::Span<int64_t> bytes, absl::Span<SimTime> finish);

 private:
  struct Sender {
    SimTime release;
    int rank;
  };
  const Lanes& lanes_;
  std::vector<Sender> order_;    // [ranks]: latest first.
  std::vector<double> offered_;  // [lanes]: bytes of the senders so far.
  std::vector<double> latest_;   // [lanes]: finish so far, in picoseconds after the first release.
};

}  // namespace epsim
