// Which part of an expert's tokens each of its replicas computes, as far as a placement policy can foresee: tokens come
// from all ranks alike and go to a near replica where there is one.
#pragma once

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

// With c replicas in all, c[n] of them on node n, and D of the N nodes with at least one, a replica on node n takes
//   share = 1 / (N * c[n]) + (N - D) / (N * c)
// of the expert's tokens: those of its own node are dealt to the replicas there, those of nodes without to all.  On one
// node that is 1 / c, as EPLB has it.  Expectation of static_nearest (replica/static_replica_choice.h).
// `replicas`: ascending, not empty.  `share` [replicas].  REQUIRES: nodes divide ranks, ranks divide slots.
void NearestShares(const PlacementShape& shape, absl::Span<const Slot> replicas, absl::Span<double> share);

// Fails, saying what would fit, where nodes do not divide ranks.
absl::Status CheckWholeNodes(const char* policy, const PlacementShape& shape);

}  // namespace epsim
