#include "models/load/uniform_load.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numbers>

#include "engine/check.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// Counts of whole numbers whose mean over layers comes to x.
int64_t InLayer(double x, int layer) {
  return static_cast<int64_t>(std::floor(x * (layer + 1.0) + 0.5) - std::floor(x * layer + 0.5));
}

int64_t CeilOfQuotient(int64_t a, int64_t b) { return (a + b - 1) / b; }

// The x below which a standard normal number lies with probability p, to 1e-12.
double NormalQuantile(double p) {
  double below = -10, above = 10;
  for (int i = 0; i < 45; ++i) {
    const double middle = (below + above) / 2;
    (0.5 * std::erfc(-middle / std::numbers::sqrt2) < p ? below : above) = middle;
  }
  return (below + above) / 2;
}

// Tokens of experts that are active.
class ActiveCounts {
 public:
  explicit ActiveCounts(const LoadCase& load)
      : batch_(static_cast<double>(load.batch)), chance_(static_cast<double>(load.top_k) / load.experts) {}

  // Spreads `pairs` over `active` experts, into counts[0, active), each from 1 to the batch.
  void Spread(int64_t pairs, int64_t active, uint32_t* counts) {
    if (active == 0) return;
    std::vector<double>& quantile = quantiles_[active];
    for (int64_t i = 0; quantile.size() < static_cast<size_t>(active); ++i) {
      quantile.push_back(NormalQuantile((static_cast<double>(i) + 0.5) / static_cast<double>(active)));
    }
    const double mean = static_cast<double>(pairs) / static_cast<double>(active);
    double deviation = std::sqrt(mean * (1 - chance_));
    // A little less than would reach the bounds, so that rounding does not pass them.
    if (active > 1) deviation = std::min(deviation, 0.999 * std::min(mean - 1, batch_ - mean) / quantile.back());
    // The sums so far are rounded, so that the whole comes to `pairs`.
    double sum = 0;
    int64_t given = 0;
    for (int64_t i = 0; i < active; ++i) {
      sum += mean + deviation * quantile[i];
      const int64_t so_far = i + 1 == active ? pairs : static_cast<int64_t>(std::floor(sum + 0.5));
      counts[i] = static_cast<uint32_t>(so_far - given);
      given = so_far;
    }
  }

 private:
  const double batch_, chance_;
  std::map<int64_t, std::vector<double>> quantiles_;  // Of each number of experts.
};

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

  // Both are bounded so that no expert, here or elsewhere, needs more tokens than there are.
  const int64_t share = ExpertsOfChip(of, busiest), others = of.experts - share;
  int64_t active = std::clamp<int64_t>(InLayer(load.most_active, layer), 1, std::min(share, all_pairs));
  const int64_t pairs = std::clamp(active + InLayer(load.most_pairs.mean - load.most_active, layer),
                                   std::max(all_pairs - others * batch, active), std::min(all_pairs, share * batch));
  active = std::max(active, CeilOfQuotient(pairs, batch));
  ActiveCounts active_counts(of);
  active_counts.Spread(pairs, active, &counts[first_expert[busiest]]);
  if (others == 0) return counts;

  // The rest: evenly over the chips after it in a circle, so that rounding does not always favour the same.
  const int64_t pairs_left = all_pairs - pairs;
  const int64_t active_left = std::clamp(InLayer(load.active - load.most_active, layer),
                                         CeilOfQuotient(pairs_left, batch), std::min(others, pairs_left));
  int64_t experts_seen = 0, active_seen = 0;
  for (int step = 1; step < of.chips; ++step) {
    const int chip = (busiest + step) % of.chips;
    experts_seen += ExpertsOfChip(of, chip);
    const int64_t active_then = active_left * experts_seen / others;
    if (active_then == active_seen) continue;
    active_counts.Spread(pairs_left * active_then / active_left - pairs_left * active_seen / active_left,
                         active_then - active_seen, &counts[first_expert[chip]]);
    active_seen = active_then;
  }
  return counts;
}

Cost ExpectedExpertTime(const UniformLoad& load, const CostModel& costs) {
  const int share = ExpertsOfChip(load.of, 0);
  const auto time_of = [&](int64_t active) {
    const int64_t pairs = std::clamp<int64_t>(std::llround(load.most_pairs.mean), active, active * load.of.batch);
    std::vector<uint32_t> counts(static_cast<size_t>(active));
    ActiveCounts(load.of).Spread(pairs, active, counts.data());
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
