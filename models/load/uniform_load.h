// What an MoE layer has to do where no trace says how tokens are routed: each token chooses its experts uniformly and
// independently, and the busiest chip is as loaded as that chance makes it.  Balanced loads would be wrong here: at 4
// tokens on 32 chips a chip has 0.96 active experts on average, and the busiest, for which all wait, has 3.17.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "models/costs/cost_model.h"
#include "models/load/max_expert_load.h"
#include "models/load/sampled_max_load.h"

namespace epsim {

// Expectations under uniform, independent choice.
struct UniformLoad {
  LoadCase of;
  double active = 0;       // Distinct active experts, of all chips.
  double most_active = 0;  // On the busiest chip; exact (max_expert_load.h).
  SampledMean most_pairs;  // Token-expert pairs on the busiest chip, by simulation.
};

// Fails as ExactMaxExpertLoad and SampleMaxLoad do.
absl::StatusOr<UniformLoad> ExpectUniformLoad(const LoadCase& load, const SamplingOptions& sampling);

// Tokens per logical expert in one layer of one step that stands for the expectation, in whole numbers.  [experts]
//
// One chip of those with most experts (the layer's number, modulo their number) is the busiest: it has the expected
// maximum of active experts, and of pairs.  The rest of all active experts lies evenly over the experts of the other
// chips, and the rest of the pairs evenly over these active experts.  Where an expectation x is not whole, layer l has
//   floor(x (l + 1) + 1/2) - floor(x l + 1/2),
// so that the mean over layers comes to it.  No expert has more tokens than the batch, and the counts add up to
// batch * top_k.
//
// The active experts of one chip differ as those of a step do, because GEMMs are computed in tiles: with mean m they
// have m + sqrt(m (1 - top_k / experts)) times the quantiles of a normal number, less spread where that would leave [1,
// batch].
std::vector<uint32_t> UniformCounts(const UniformLoad& load, int layer);

// The expected time of the routed experts' GEMMs of a layer, which is that of its busiest chip, between the times for
// the whole numbers of active experts next to the expectation.
Cost ExpectedExpertTime(const UniformLoad& load, const CostModel& costs);

}  // namespace epsim
