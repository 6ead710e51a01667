// From the popularity that a config asks for to the integer weights from which distinct experts are drawn.
//
// Successive sampling (draw in proportion to the weights, without replacement, until there are top_k ids) is the race
// of exponential clocks: expert e with weight w is among the first top_k if its clock rings before the top_k-th ring.
// Taking that moment as fixed (at time 1, by the scale of the weights), e is drawn with probability 1 - exp(-w), and
// with ids kept from the previous token with probability rho, its share pi of the tokens is stationary where
//   pi = rho pi + (1 - rho pi) (1 - exp(-w))    <=>    w = ln((1 - rho pi) / (1 - pi)).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "engine/random_stream.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {

// Popularity in any scale [experts] -> the part of tokens that choose each expert [experts]: sums to top_k, none above
// 1; what a capped expert cannot take goes to the others in proportion.  REQUIRES: at least top_k are positive.
std::vector<double> InclusionProbabilities(absl::Span<const double> popularity, int top_k);

// The same from a config's popularity, which is valid and not dealt.  `order` decides ranks that are not by id.
std::vector<double> InclusionProbabilities(const LayerPopularity& popularity, int experts, int top_k,
                                           RandomStream& order);

// Weights [experts], the greatest 2^24; positive where the probability is.  Integers, so that a last-bit difference
// between two machines' logarithms vanishes.  REQUIRES: 0 <= keep_previous < 1.
std::vector<uint32_t> DrawingWeights(absl::Span<const double> inclusion, double keep_previous);

}  // namespace epsim
