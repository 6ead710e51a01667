#include "models/load/uniform_load.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// Counts of whole numbers whose mean over layers comes to x.
int64_t InLayer(double x, int layer) {
  return static_cast<int64_t>(std::floor(x * (layer + 1.0)) - std::floor(x * layer));
}

// Spreads `pairs` evenly over `active` experts, into counts[0, active).
void Spread(int64_t pairs, int64_t active, uint32_t* counts) {
  for (int64_t i = 0; i < active; ++i) counts[i] = static_cast<uint32_t>(pairs / active + (i < pairs % active ? 1 : 0));
}

int64_t CeilOfQuotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

absl::StatusOr<UniformLoad> ExpectUniformLoad(const LoadCase& load, const SamplingOptions& sampling) {
  UniformLoad uniform{.of = load, .active = 0, .most_active = 0, .most_pairs = {}};
  ASSIGN_OR_RETURN(uniform.most_active, ExactMaxExpertLoad(load));
  uniform.active = ExpectedActiveExperts(load);
  ASSIGN_OR_RETURN(const SampledLoad sampled, SampleMaxLoad(load, {}, sampling));
  uniform.most_pairs = sampled.pairs;
  return uniform;
}

std::vector<uint32_t> UniformCounts(const UniformLoad& load, int layer) {
  const LoadCase& of = load.of;
  const int64_t batch = of.batch, all_pairs = batch * of.top_k;
  const int more = of.experts % of.chips;
  const int candidates = more > 0 ? more : std::min(of.chips, of.experts);
  const int busiest = layer % candidates;
  std::vector<int> first_expert(static_cast<size_t>(of.chips) + 1, 0);
  for (int chip = 0; chip < of.chips; ++chip) first_expert[chip + 1] = first_expert[chip] + ExpertsOfChip(of, chip);
  std::vector<uint32_t> counts(static_cast<size_t>(of.experts), 0);

  // What the other experts can take at most is left to them, and what they need at least, too.
  const int64_t share = ExpertsOfChip(of, busiest), others = of.experts - share;
  const int64_t pairs =
      std::clamp(InLayer(load.most_pairs.mean, layer), std::max<int64_t>(all_pairs - others * batch, 1),
                 std::min(all_pairs, share * batch));
  const int64_t active =
      std::clamp(InLayer(load.most_active, layer), CeilOfQuotient(pairs, batch), std::min(share, pairs));
  Spread(pairs, active, &counts[first_expert[busiest]]);
  if (others == 0) return counts;

  // The chips after it in a circle, so that rounding does not always favour the same.
  const int64_t pairs_left = all_pairs - pairs;
  const double active_per_expert = (load.active - load.most_active) / static_cast<double>(others);
  int64_t seen = 0;  // Experts of the chips so far.
  for (int step = 1; step < of.chips; ++step) {
    const int chip = (busiest + step) % of.chips;
    const int64_t experts = ExpertsOfChip(of, chip);
    const int64_t of_chip = pairs_left * (seen + experts) / others - pairs_left * seen / others;
    const int64_t expected = static_cast<int64_t>(std::floor(active_per_expert * static_cast<double>(seen + experts)) -
                                                  std::floor(active_per_expert * static_cast<double>(seen)));
    seen += experts;
    if (of_chip == 0) continue;
    const int64_t least = CeilOfQuotient(of_chip, batch);
    Spread(of_chip, std::clamp(std::min(expected, active), least, std::max(least, std::min(experts, of_chip))),
           &counts[first_expert[chip]]);
  }
  return counts;
}

Cost ExpectedExpertTime(const UniformLoad& load, const CostModel& costs) {
  const int share = ExpertsOfChip(load.of, 0);
  const auto time_of = [&](int64_t active) {
    const int64_t pairs = std::clamp<int64_t>(std::llround(load.most_pairs.mean), active, active * load.of.batch);
    std::vector<uint32_t> counts(static_cast<size_t>(active));
    Spread(pairs, active, counts.data());
    std::vector<int32_t> tokens_per_slot(counts.begin(), counts.end());
    tokens_per_slot.resize(static_cast<size_t>(share));
    return costs.RoutedExperts(tokens_per_slot);
  };
  const int64_t below = std::clamp<int64_t>(static_cast<int64_t>(std::floor(load.most_active)), 1, share);
  const int64_t above = std::min<int64_t>(below + 1, share);
  const double part = std::clamp(load.most_active - static_cast<double>(below), 0.0, 1.0);
  Cost cost = time_of(below);
  const Cost cost_above = time_of(above);
  cost.time += Duration(std::llround(part * static_cast<double>((cost_above.time - cost.time).count())));
  return cost;
}

}  // namespace epsim
