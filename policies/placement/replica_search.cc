#include "policies/placement/replica_search.h"

#include <algorithm>
#include <limits>
#include <queue>
#include <utility>

#include "engine/check.h"

namespace epsim {

std::vector<int> MinMaxExtras(absl::Span<const double> risk, int extras, int most) {
  EPSIM_CHECK(extras == 0 || !risk.empty());
  // Largest risk per replica first, then the lowest index.
  std::priority_queue<std::pair<double, int>, std::vector<std::pair<double, int>>> largest;
  std::vector<int> replicas(risk.size(), 1), given;
  const auto enter = [&](int i) { largest.emplace(risk[i] / replicas[i], -i); };
  const auto enter_all = [&] {
    for (size_t i = 0; i < risk.size(); ++i) {
      if (replicas[i] < most) enter(static_cast<int>(i));
    }
  };
  enter_all();
  while (given.size() < static_cast<size_t>(extras)) {
    if (largest.empty()) {
      most = extras + 1;  // All have that many.
      enter_all();
    }
    const int i = -largest.top().second;
    largest.pop();
    given.push_back(i);
    if (++replicas[i] < most) enter(i);
  }
  return given;
}

SearchedDeployment SearchReplicas(const LoadSamples& samples, int slots, int ranks, const ReplicaSearch& search) {
  const LoadStatistics statistics(samples);
  const int experts = samples.experts();
  int left = slots - experts;  // Redundant slots that no segment has yet.
  EPSIM_CHECK(left >= 0 && search.depth > 0);

  std::vector<std::pair<double, int>> order;
  for (int expert = 0; expert < experts; ++expert) order.emplace_back(-statistics.Risk(expert, search.z), expert);
  std::sort(order.begin(), order.end());
  std::vector<double> risk;
  for (const auto& [negative_risk, expert] : order) risk.push_back(-negative_risk);

  std::vector<int32_t> replicas(experts, 1);  // Of the segments decided; 1 elsewhere.
  const auto extras = [&](int begin, int end, int count) {
    return MinMaxExtras(absl::MakeConstSpan(risk).subspan(begin, end - begin), count, ranks);
  };
  const auto give = [&](const std::vector<int>& given, int count, int begin, std::vector<int32_t>* to) {
    for (int i = 0; i < count; ++i) ++(*to)[order[begin + given[i]].second];
  };
  const auto deploy = [&](const std::vector<int32_t>& tried) {
    SearchedDeployment deployed{DeployByRisk(statistics, tried, ranks, search.z), 0};
    deployed.peak_to_average = PeakToAverage(samples, deployed.experts_of_slots, ranks);
    return deployed;
  };

  const int segment = (experts + search.depth - 1) / search.depth;
  int begin = 0;
  for (int node = 0; node < search.depth - 1 && left > 0; ++node) {
    const int end = begin + segment;
    if (end >= experts) break;
    const std::vector<int> together = extras(begin, experts, left), here = extras(begin, end, left),
                           below = extras(end, experts, left);
    const int initial =
        static_cast<int>(std::count_if(together.begin(), together.end(), [&](int i) { return i < end - begin; }));
    // How many fit without two replicas of an expert on one rank.
    const auto room = [&](int count) {
      return static_cast<int>(std::min<int64_t>(int64_t{count} * (ranks - 1), left));
    };
    int low = left - room(experts - end), high = room(end - begin);
    if (low > high) low = 0, high = left;

    int best = initial;
    double best_score = std::numeric_limits<double>::infinity();
    const auto try_split = [&](int x) {
      if (x < low || x > high) return;
      std::vector<int32_t> tried = replicas;
      give(here, x, begin, &tried);
      give(below, left - x, end, &tried);
      const double score = deploy(tried).peak_to_average;
      if (score >= best_score) return;
      best = x;
      best_score = score;
    };
    try_split(initial);
    for (int distance = 1; distance <= search.width; ++distance) {
      try_split(initial - distance);
      try_split(initial + distance);
    }
    give(here, best, begin, &replicas);
    left -= best;
    begin = end;
  }
  give(extras(begin, experts, left), left, begin, &replicas);
  return deploy(replicas);
}

}  // namespace epsim
