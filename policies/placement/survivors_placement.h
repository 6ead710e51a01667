// Stands before a placement policy and serves requests while some ranks are away: the policy places the experts on the
// survivors, as if there were no others.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "policies/placement/placement_policy.h"

namespace epsim {

// The survivors of `shape` as a shape of their own: their slots, in order; as many nodes as have survivors where these
// have equally many, else one, because policies know no uneven nodes.  Fails where the slots left are fewer than the
// experts, and says how many a rank would do.  REQUIRES: `failed` is ascending, without repetitions.
absl::StatusOr<PlacementShape> SurvivorShape(const PlacementShape& shape, absl::Span<const Rank> failed);

// Requests without failed ranks go to `policy`.  For others a policy of its own is made by `make`, anew whenever other
// ranks fail; the slots of failed ranks then hold kNoExpert.  Of the exchange it sees the survivors' ports, or nothing
// where several nodes pass for one: what crosses the network would look as cheap as what does not.
using MakePlacementPolicy = absl::StatusOr<std::unique_ptr<PlacementPolicy>> (*)(const PlacementPolicyConfig& config,
                                                                                 const PlacementShape& shape);
std::unique_ptr<PlacementPolicy> NewSurvivorsPlacement(std::unique_ptr<PlacementPolicy> policy,
                                                       const PlacementPolicyConfig& config, const PlacementShape& shape,
                                                       MakePlacementPolicy make);

}  // namespace epsim
