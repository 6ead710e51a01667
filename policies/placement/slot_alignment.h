// A new placement on top of an old one, so that little has to be copied: an expert that a rank holds already is not,
// and which of its slots holds it is of no consequence.
#pragma once

#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

// Permutes `after` within each rank: of the experts that were on the rank before, each copy keeps its old slot, as many
// as there were (the first slots first); newcomers take the free slots, both in ascending order.  [slots] both; slots
// of `before` may be empty.
void AlignSlots(absl::Span<const LogicalExpert> before, int slots_per_rank, absl::Span<LogicalExpert> after);

// Permutes the rows of `after`, a row being the experts of one rank, so that in all the fewest slots get another expert
// (LeastCostAssignment); then AlignSlots.  [slots] both.  Ranks are taken as alike.  O(ranks^2 * (slots per rank +
// ranks)).
void MatchRanks(absl::Span<const LogicalExpert> before, int slots_per_rank, absl::Span<LogicalExpert> after);

}  // namespace epsim
