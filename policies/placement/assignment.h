// Who does what: n workers, n jobs, what each pair costs, and the pairing of all that costs least.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace epsim {

// The job of each worker, [workers]: of all permutations one with the least sum of cost[worker * n + job].  Which one,
// where several cost the same, follows from the order of workers and jobs alone.
// `cost`: [workers, jobs], square; any sign, sums of n of them within 2^62.  O(n^3): shortest augmenting paths with
// potentials, the Hungarian method as of Jonker and Volgenant (1987).
std::vector<int> LeastCostAssignment(absl::Span<const int64_t> cost, int n);

}  // namespace epsim
