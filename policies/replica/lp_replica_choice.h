// DeepSeek's LPLB: in every batch the tokens of replicated experts are split over their replicas so that the most
// loaded rank has the least load that the placement allows.
#pragma once

#include <memory>

#include "engine/units.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

// Of each call, from the pairs of every source rank and expert:
// 1. how many pairs each rank gets: the optimum of the linear program of ReplicaSplit::LowerMaximum, in whole pairs,
//    found from where the least-loaded deal ends;
// 2. whose pairs these are, by PairDeal::InProportion: every source splits its own as all together are split.
// Each piece of a batch that is exchanged by itself is a call, and is solved by its own counts.
//
// More general than the reference, whose experts have two copies at most, linked as a cube, hypercube or torus: here
// an expert has as many replicas as the placement gives it, anywhere.  The reference stops its interior-point method
// after five steps and splits every expert in halves where that has not converged; this is the optimum itself.  As
// there, a rank's load counts pairs: that weights are read once however few the tokens is not seen.
// Source: deepseek-ai/LPLB.
// Share(): the first step alone.
std::unique_ptr<PerCallReplicaChoice> NewLpReplicaChoice(Duration planning_time);

}  // namespace epsim
