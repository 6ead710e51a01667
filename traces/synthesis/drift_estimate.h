// Whether the hot experts of a captured trace change over its length.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/random_stream.h"

namespace epsim {

struct DriftEstimate {
  double fraction = 0;           // Of the hot set (an eighth of the experts), exchanged in ...
  size_t interval_requests = 0;  // ... this many requests.
};

// histograms: [requests][layers * experts], ids, in the order of the trace.
//
// The trace is cut into up to 16 windows of as many requests.  If heat drifts, popularities of neighbouring windows are
// nearer or farther than those of windows of shuffled requests (16 shuffles); within 5 standard deviations there is no
// drift.  Its size is by how much more of the hot set changes between neighbours than between halves of one window.
std::optional<DriftEstimate> EstimateDrift(absl::Span<const std::vector<uint32_t>> histograms, int experts,
                                           RandomStream random);

// Whether groups of requests are passing: in the order of the trace each is found in few of the windows, compared with
// a shuffled order (less than 0.6 of them, mean over requests).  Such groups are not kinds of requests but times.
// group: [requests].
bool GroupsPass(absl::Span<const int> group, RandomStream random);

}  // namespace epsim
