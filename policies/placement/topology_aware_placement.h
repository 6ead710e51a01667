// A placement that spares the wires as well as the busiest rank: experts that tokens choose together are brought onto
// one rank or node where that makes the layer faster, not where it only balances load.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// Minimises LayerPrediction::time() (layer_prediction.h) of each layer by local search.  It starts from EPLB's global
// or, where the shape allows it, hierarchical placement, whichever is predicted to be faster, and then changes it by
// what lowers smooth_time():
//   balance   slots of the busiest rank against those of the 8 least busy
//   company   two slots that spare the most copies by changing places, the more alike in load the sooner: each is tried
//             with the 8 best of the slots after it, until 128 in a row have not helped
//   replicas  a slot whose expert has another one against a replica of one of the 8 most loaded slots' experts
// in turn, for at most eight rounds and kTopologyAwareWork a layer (a change that is tried takes 128, and 1 for each
// sampled token that chose one of its experts, there and, if it does not help, back).  The fastest placement on the way
// is the answer: never slower than EPLB's by the prediction.
//
// The request's cost view and co-activation decide together.  Without a cost view the load of the busiest rank takes
// the place of time; without co-activation, or where the view knows no exchange, expert time alone counts.  Scaling the
// loads changes nothing without a cost view; with one, kernels' floors make it matter.  No state, nothing random.
// Fails where nodes do not divide ranks.
inline constexpr int64_t kTopologyAwareWork = 1 << 19;
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewTopologyAwarePlacement(const PlacementShape& shape);

}  // namespace epsim
