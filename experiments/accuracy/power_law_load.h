// How many tokens each expert gets where experts are unequally popular, as NVIDIA's aiconfigurator draws it for its
// measurements of expert layers.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/random_stream.h"

namespace epsim {

// [experts] counts that add up to tokens * top_k, none above `tokens`: draws from the density x^-alpha on [1, 0.8 *
// tokens], or on [0.01, 2] where there are no more pairs than experts, scaled to the sum and rounded to nearest; what
// is then missing or too much is added or taken, one by one, at experts drawn alike.
//
// REQUIRES: alpha > 0, top_k <= experts, tokens >= 1.
std::vector<int32_t> DrawPowerLawLoad(int32_t tokens, int experts, int top_k, double alpha, RandomStream& random);

}  // namespace epsim
