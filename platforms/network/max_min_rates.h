// Max-min fair rates: no flow's rate can rise without lowering that of a flow that has no more (Bertsekas and Gallager,
// Data Networks, 1992, section 6.5.2).  Found by progressive filling: all rates rise together until a link is full; the
// flows on it stay at that rate, and the others rise on.
//
// The level of the filling at which flows were found orders what a change can reach: below the rate of a flow that
// leaves nothing changes, for until then no link of its route was full, and below the level at which the links of a
// newcomer's route are full with it nothing changes either.  The filling goes on from there, from a state kept on the
// way.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "platforms/network/flow.h"

namespace epsim {

// The least of `values`, or infinity.
double Least(absl::Span<const double> values);

class MaxMinRates {
 public:
  // `flows` must outlive this.  None is there yet.
  explicit MaxMinRates(absl::Span<const Flow> flows);

  void Add(int flow);
  void Remove(int flow);
  // Brings the rates in line with the flows that are there, and tells those that may have changed, in work per
  // picosecond: of one rate together.
  void Fill(absl::FunctionRef<void(double rate, absl::Span<const int> flows)> changed);

 private:
  struct Use {
    int link;
    double picoseconds;
  };
  struct LinkState {
    double room = 1;    // Share of the link that flows leave whose rate is found.
    double weight = 0;  // Picoseconds that a unit of work of each flow takes whose rate is not found.
    int unfound = 0;    // How many these are.
  };
  // Flows that were found when a link was full.
  struct Group {
    double rate;
    size_t first;  // In found_.
  };
  // The links when `groups` groups had been found.
  struct Checkpoint {
    size_t groups;
    std::vector<LinkState> links;
  };
  absl::Span<const Use> uses(int flow) const {
    return {uses_.data() + first_use_[flow], static_cast<size_t>(first_use_[flow + 1] - first_use_[flow])};
  }
  // Whether what had been found by then stays when `flow` is added.
  bool StaysWith(const Checkpoint& checkpoint, int flow) const;
  void KeepCheckpoint();
  // Finds the flows on `link`, which is full at `rate`.
  void Find(int link, double rate);
  double FullAt(int link) const;

  std::vector<Use> uses_;                        // By flow.
  std::vector<int> first_use_;                   // [flows + 1]
  std::vector<std::vector<int>> flows_on_link_;  // [links]: those there, and some that have left.
  std::vector<uint8_t> there_;                   // [flows]
  std::vector<int> group_;                       // [flows]: or kUnfound.
  std::vector<Group> groups_;                    // By rate.
  std::vector<int> found_;                       // By group.
  std::vector<LinkState> links_;                 // [links]
  std::vector<Checkpoint> checkpoints_;          // By groups, the first of none.
  size_t kept_ = 1;                              // Checkpoints that hold; the others are spare memory.
  std::vector<int> filling_;                     // Links that had unfound flows when the filling began.
  std::vector<int> place_;                       // [links]: in filling_.
  std::vector<double> full_at_;                  // [filling_]: the rate at which it is full, or infinity.
};

}  // namespace epsim
