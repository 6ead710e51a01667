// What a layer has to do where the trace has only counts: no token's own set of experts is known, so that the traffic
// is the expectation under independence.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "models/routing/token_routing.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica_choice.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// With T tokens in the batch, n_s of them of source rank s, and c_e tokens of expert e:
//
// tokens_per_slot: the sources have equal shares in each expert, so that slot p has c_e * sum(n_s / T : table[s][e] =
// p) of expert e's tokens.  The shares are made whole by largest remainder among the slots of the expert (the lower
// slot first where remainders are equal): the sum over slots is exactly sum(c_e), and no slot is off by one.
//
// tokens_between: a token of s goes to rank d unless none of its experts is there,
//   x[s][d] = n_s * (1 - product over experts e with table[s][e] on d of (1 - min(c_e / T, 1))),
// made whole so that what d receives in all is right to within one token: with X[s][d] = x[0][d] + ... + x[s][d],
//   tokens_between[s][d] = min(n_s, floor(X[s][d] + f_d) - floor(X[s - 1][d] + f_d)),   f_d = (d + 1/2) / ranks.
// The offsets f_d keep equal destinations from rounding up at the same source.  tokens_to_node is the same with nodes
// for ranks.
//
// pairs_between: the w tokens of a slot are those of its sources in the measure of their tokens.  With N tokens of all
// sources of the slot and N[s] of those up to s,
//   u[s] = floor(w * N[s] / N + g) - floor(w * N[s - 1] / N + g)
// of them are of source s: the sum over sources of what goes to a rank is what its slots compute.
//
// A range takes its share of each whole number: of w among the n_s tokens of a source, the tokens [b, e) of it have
//   floor(w * e / n_s + g) - floor(w * b / n_s + g),
// so that ranges that together make the batch add up to its counts.  tokens_per_slot is then the sum of the shares of
// u[s].  g is from 0 to 1 and spread evenly over sources and slots, or sources and destinations.
//
// Where replicas are chosen anew in every call, weight [slots] says in what measure every source uses the replicas of
// an expert (PerCallReplicaChoice::Share).  With W_p the part of slot p in the weights of its expert, slot p has c_e *
// W_p of expert e's tokens,
//   x[s][d] = n_s * (1 - product over experts e of (1 - min(c_e / T, 1) * sum(W_p : replicas p of e on d))),
// and every source is one of the sources of each slot.
//
// Replaces *routed.  REQUIRES: batch.counts and batch.rank_begin are set.
void CountExpected(const StepBatch& batch, const TokenRange& range, Layer layer, const PlacementShape& shape,
                   const ReplicaTable& table, const RoutingDetail& detail, RoutedLayer* routed);
void CountExpected(const StepBatch& batch, const TokenRange& range, Layer layer, const Placement& placement,
                   absl::Span<const uint32_t> weight, const RoutingDetail& detail, RoutedLayer* routed);

}  // namespace epsim
