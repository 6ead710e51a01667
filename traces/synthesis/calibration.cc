#include "traces/synthesis/calibration.h"

#include <algorithm>

#include "traces/synthesis/layer_draws.h"
#include "traces/synthesis/popularity.h"

namespace epsim {
namespace {

constexpr int kRounds = 10;
constexpr double kGain = 0.8;  // Of what is missing, made good in one round.

struct Measured {
  std::vector<double> inclusion;  // [experts]
  double overlap = 0;
};

Measured MeasureDomain(LayerDraws& draws, int domain, const CalibrationRequests& requests, int experts, int top_k) {
  std::vector<int64_t> counts(experts, 0);
  std::vector<int64_t> last_seen(experts, -1);
  std::vector<uint16_t> ids(top_k);
  int64_t tokens = 0, pairs = 0, shared = 0;
  for (size_t r = 0; tokens < requests.tokens; ++r) {
    const int64_t length = requests.lengths[domain][r % requests.lengths[domain].size()];
    for (int64_t t = 0; t < length && tokens < requests.tokens; ++t, ++tokens) {
      draws.Draw(domain, t == 0 ? nullptr : ids.data(), ids.data());
      for (uint16_t id : ids) {
        ++counts[id];
        shared += t > 0 && last_seen[id] == tokens - 1;
        last_seen[id] = tokens;
      }
      pairs += t > 0;
    }
  }
  Measured result;
  for (int64_t count : counts) result.inclusion.push_back(static_cast<double>(count) / static_cast<double>(tokens));
  result.overlap = pairs == 0 ? 0.0 : static_cast<double>(shared) / static_cast<double>(pairs * top_k);
  return result;
}

}  // namespace

LayerSolution CalibrateLayer(const LayerGoal& goal, const CalibrationRequests& requests, int top_k,
                             const RandomStream& random) {
  const size_t domains = goal.inclusion.size(), experts = goal.inclusion[0].size();
  LayerSolution now{goal.inclusion, 0.0};
  LayerSolution mean{std::vector(domains, std::vector(experts, 0.0)), 0.0};
  if (goal.overlap > 0) {
    // Ids that are not kept meet again by chance: about the sum of squared shares, over top_k.
    double chance = 0;
    for (size_t d = 0; d < domains; ++d) {
      for (double pi : goal.inclusion[d]) chance += requests.token_share[d] * pi * pi / top_k;
    }
    if (chance < 1) now.keep_previous = std::clamp((goal.overlap - chance) / (1 - chance), 0.0, 0.99);
  }
  for (int round = 0; round < kRounds; ++round) {
    std::vector<std::vector<uint32_t>> weights;
    for (size_t d = 0; d < domains; ++d) {
      weights.push_back(DrawingWeights(InclusionProbabilities(now.popularity[d], top_k), now.keep_previous));
    }
    LayerDraws draws(top_k, now.keep_previous, weights, random);
    double overlap = 0;
    for (size_t d = 0; d < domains; ++d) {
      const Measured measured = MeasureDomain(draws, static_cast<int>(d), requests, static_cast<int>(experts), top_k);
      overlap += requests.token_share[d] * measured.overlap;
      for (size_t e = 0; e < experts; ++e) {
        const double wanted = goal.inclusion[d][e];
        double& popularity = now.popularity[d][e];
        popularity = std::clamp(popularity + kGain * (wanted - measured.inclusion[e]), wanted / 4, wanted * 4);
      }
    }
    if (goal.overlap >= 0) {
      now.keep_previous = std::clamp(now.keep_previous + kGain * (goal.overlap - overlap), 0.0, 0.99);
    }
    // The second half of the rounds is averaged: what is left there is the noise of drawing.
    if (round < kRounds / 2) continue;
    for (size_t d = 0; d < domains; ++d) {
      for (size_t e = 0; e < experts; ++e) mean.popularity[d][e] += now.popularity[d][e] / (kRounds - kRounds / 2);
    }
    mean.keep_previous += now.keep_previous / (kRounds - kRounds / 2);
  }
  return mean;
}

}  // namespace epsim
