// How many experts the busiest chip has to read when nothing is known of the routing: each token of a batch chooses its
// experts uniformly, without replacement and independently of the other tokens; an expert is active if a token has
// chosen it.  In decode the weights of active experts are most of what an MoE layer costs.
#pragma once

#include <algorithm>
#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epsim {

// A batch of one MoE layer on the chips that share its experts.
struct LoadCase {
  int64_t batch = 1;  // Tokens, of all chips together.
  int chips = 1;
  int experts = 256;
  int top_k = 8;  // Distinct experts of a token.
};

inline constexpr int kMostExactExperts = 4096;

// Experts of `chip`: they are dealt in order, and where the chips do not divide them the first (experts mod chips)
// chips hold one more.  Chips beyond the experts hold none.
inline int ExpertsOfChip(const LoadCase& load, int chip) {
  return load.experts / load.chips + (chip < load.experts % load.chips ? 1 : 0);
}

// Whether all is positive and a token can have its experts; an error names the flag of `epsim maxload`.
absl::Status CheckLoadCase(const LoadCase& load);

// The expectation of the maximum over chips of the number of distinct active experts, without simulation:
//
//   The number K of active experts is a Markov chain over the tokens: from u active experts a token with k experts
//   makes u + j with probability C(E - u, j) C(u, k - j) / C(E, k).
//   Given K, the active experts are a uniform K-subset of the E, so that with m_c experts on chip c
//     P(max <= t | K) = [x^K] (product over chips of sum_{j <= t} C(m_c, j) x^j) / C(E, K).
//   E[max] = sum over t >= 0 of P(max > t).
//
// Nothing is subtracted before the last line: the polynomials are kept as probabilities, C(m, j) p^j (1 - p)^(m - j)
// with p = E[K] / E, and divided by C(E, K) p^K (1 - p)^(E - K).  States and numbers of active experts less likely than
// 1e-30 are left out, and the chain ends when every expert is active but for such a chance, so that any batch can be
// asked for.  The result is right to 1e-11 relative (tested to 1e-9 against 50-digit arithmetic).  On one chip it is
// E (1 - (1 - k / E)^batch).
//
// A published table gives, for 256 experts and top-8, figures of a simulation of the same quantity; beside them the
// exact values:
//
//   batch, chips    published      exact
//    4,   1         30.5121       30.531006
//    4,  32          3.18425       3.174436
//    4, 256          1.0           1
//   64,  32          8.0           7.9999992
//
// Fails beyond kMostExactExperts, where the method takes too long.
absl::StatusOr<double> ExactMaxExpertLoad(const LoadCase& load);

// Experts active on all chips together: E (1 - (1 - k / E)^batch).
double ExpectedActiveExperts(const LoadCase& load);

}  // namespace epsim
