// A replica choice by the counts of the batch: every token-expert pair goes to the rank that has the least load so far.
#pragma once

#include <memory>

#include "engine/units.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

// Of each call, from the pairs of every source rank and expert:
// 1. how many pairs each rank gets, by ReplicaSplit::DealToLeastLoaded: experts on one rank first, then the others, the
//    most chosen first, pair by pair to the rank with the least load;
// 2. whose pairs these are, by PairDeal::PreferNear: those of the rank itself before those of its node before others.
// A rank's load counts pairs.  Each piece of a batch that is exchanged by itself is a call, and is dealt by its own
// counts: when a piece is dispatched, those of the next need not be known.
//
// When an expert has been dealt, none of its pairs is on a rank with two pairs or more above another of its ranks.  No
// more is promised: what is dealt later can find its ranks full, so that the greatest load is not always the least
// possible (lp_replica_choice.h), nor always below that of a lucky fixed choice.
// Share(): the first step alone; the sources are then alike, as in PairDeal::InProportion.
std::unique_ptr<PerCallReplicaChoice> NewLeastLoadedReplicaChoice(Duration planning_time);

}  // namespace epsim
