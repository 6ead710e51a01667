// The load of the busiest chip by simulation (Monte Carlo), for what has no exact method (max_expert_load.h): experts
// that are not equally popular, routers that choose groups of experts first, and the number of tokens on a chip.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "models/load/max_expert_load.h"

namespace epsim {

// How a router with groups of experts (n_group, topk_group) ranks the groups.
enum class GroupRule {
  kBestTwo,      // By the sum of the two best scores in the group: DeepSeek-V3 (noaux_tc).
  kBestExpert,   // By the best score in the group: DeepSeek-V2 (group_limited_greedy).
  kIndependent,  // By scores of their own, which say nothing of those of the experts.
};

// How a token chooses its top_k experts.  It draws a score u^(1 / w) for each expert, with u uniform in (0, 1) and w
// the expert's popularity over the mean popularity, and takes the experts of the best scores.  That is the same as
// drawing one expert after another, each time in proportion to the popularity of those that are left (Efraimidis,
// Spirakis 2006, "Weighted random sampling with a reservoir"); with equal popularities every set is equally likely.
//
// With groups, the experts lie in `groups` equal groups in order, the token takes its `top_groups` best groups, and of
// those its best experts.  Ranked by their best expert, groups are thereby drawn in proportion to their total
// popularity, one after another; independent groups are drawn so, too.  (4 of 8 groups for 4 tokens on 32 chips, 256
// experts, top-8, uniform: 3.342 by the best two, 3.364 by the best expert, 3.472 independent; without groups 3.174.)
struct RoutingLaw {
  std::vector<double> popularity = {};  // [experts], to any scale; empty: all equal.
  int groups = 1, top_groups = 1;
  GroupRule rule = GroupRule::kBestTwo;
};

// Whether nothing but uniform choice is asked for, so that ExactMaxExpertLoad knows the answer.
bool IsUniform(const RoutingLaw& law);

struct SamplingOptions {
  int64_t samples = 0;  // Batches drawn; 0: DefaultSamples.
  uint64_t seed = 1;
  int threads = 0;  // 0: one per core.  The result does not depend on it.
  StopToken stop = {};
  bool show_progress = false;  // On stderr, where that is a terminal.
};

inline constexpr int kMostSampledExperts = 16384;
inline constexpr int64_t kMostSampledPairs = int64_t{1} << 24;  // Token-expert pairs in a batch.

// A million, or as many as draw 2^30 pairs, but at least 1,000.
int64_t DefaultSamples(const LoadCase& load);

struct SampledMean {
  double mean = 0;
  double standard_error = 0;
};

// Expectations of maxima over chips.
struct SampledLoad {
  SampledMean active_experts;  // Distinct active experts on a chip.
  SampledMean pairs;           // Token-expert pairs on a chip; the chip need not be the one with most active experts.
  int64_t samples = 0;
};

// Draws batches in blocks, each with a random stream of its own, over all cores.  Errors name the flag of `epsim
// maxload`.
absl::StatusOr<SampledLoad> SampleMaxLoad(const LoadCase& load, const RoutingLaw& law, const SamplingOptions& options);

}  // namespace epsim
