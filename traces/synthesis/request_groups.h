// Sorts requests into groups that use the same experts.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/random_stream.h"

namespace epsim {

// k-means (Lloyd 1982, started by k-means++, Arthur and Vassilvitskii 2007; the best of several starts) on the square
// roots of each layer's expert shares, whose Euclidean distance is Hellinger's and whose sampling noise does not depend
// on the share.  Requests weigh by their number of ids.
// histograms: [requests][layers * experts], ids.  Returns the group of each request, 0 .. at most groups - 1, the group
// with most requests first.  REQUIRES: groups >= 1, no histogram empty.
std::vector<int> GroupRequests(absl::Span<const std::vector<uint32_t>> histograms, int experts, int groups,
                               RandomStream random);

}  // namespace epsim
