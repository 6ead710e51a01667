// Which flows may go.  On a link the phases of a stream follow each other in the order they were started: a flow goes
// when no flow of an earlier phase of its stream is left on any link of its route, not even one that is yet to be
// released.  Flows of one phase, and of different streams, do not wait for each other.
#pragma once

#include <vector>

#include "absl/types/span.h"
#include "engine/ids.h"
#include "platforms/network/flow.h"

namespace epsim {

class FlowOrder {
 public:
  // `flows` must outlive this.  REQUIRES: phases in the order they were started.
  explicit FlowOrder(absl::Span<const Flow> flows);

  bool may_go(int flow) const { return waits_[flow] == 0; }
  // Takes a flow out that has ended and appends those that may go from now on to `next`.  REQUIRES: may_go(flow).
  void End(int flow, std::vector<int>* next);

 private:
  struct Group {
    PhaseId phase;
    std::vector<int> flows;
    size_t left;
  };
  // The phases of one stream on one link.
  struct Line {
    std::vector<Group> groups;
    size_t first = 0;  // The group whose turn it is.
  };
  // The line of flow i on the k-th link of its route, or null in a stream of one phase.
  Line* line(int flow, size_t k) { return line_of_stream_[flow] < 0 ? nullptr : &lines_[LineIndex(flow, k)]; }
  size_t LineIndex(int flow, size_t k) const {
    return static_cast<size_t>(line_of_stream_[flow]) + Index(flows_[flow].links()[k].link);
  }

  absl::Span<const Flow> flows_;
  std::vector<int> waits_;           // [flows]: links of its route on which it is not its phase's turn.
  std::vector<int> line_of_stream_;  // [flows]: first of its stream's lines, or -1 in a stream of one phase.
  std::vector<Line> lines_;          // [streams of several phases, links]
};

}  // namespace epsim
