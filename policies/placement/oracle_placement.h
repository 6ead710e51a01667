// A bound for the policies that plan on past load: the best placement that is found for the very steps that are scored.
// No server can have it; experiments turn their planning into hindsight for it.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// What the oracle minimises: sum over the window's rows of the load of the busiest rank in the row, where replicas
// compute the shares of nearest_shares.h.  `experts` [slots].  REQUIRES: nodes divide ranks.
double SumOfBusiest(const PlacementShape& shape, const LoadWindow& window, Layer layer,
                    absl::Span<const LogicalExpert> experts);

// The best, layer by layer, of
//   EPLB's global and, where the shape allows it, hierarchical placement of the window's total,
//   the same of each expert's highest row (what matters where experts peak in turn),
//   the best of them dealt anew: its replicas, heaviest first, to the rank with room where SumOfBusiest grows least,
// improved by swaps of two slots as long as one helps and the work (kOracleWork row evaluations a layer) lasts.  Swaps
// between nodes are of experts without other replicas, as shares then stay as they are.  Never worse than EPLB by
// SumOfBusiest; not the optimum, which is NP-hard: perfect balance is the bound that none can pass.
// No state, nothing random.  Fails where nodes do not divide ranks.
inline constexpr int64_t kOracleWork = 1 << 15;
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewOraclePlacement(const PlacementShape& shape);

}  // namespace epsim
