#include <cmath>
#include <cstdint>
#include <numeric>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

// Counts of a window, skewed as captured DeepSeek-V3 routing is: Zipf with exponent 0.8, hot experts anywhere, and some
// noise, so that no two layers are alike.  Mean 32,768 tokens an expert.
std::vector<float> SkewedCounts(int layers, int experts) {
  RandomStream random(1, "eplb_placement_bench");
  std::vector<double> share(experts);
  for (int i = 0; i < experts; ++i) share[i] = std::pow(i + 1, -0.8);
  const double scale = 32768.0 * experts / std::accumulate(share.begin(), share.end(), 0.0);
  std::vector<float> counts;
  for (int layer = 0; layer < layers; ++layer) {
    for (int i = experts - 1; i > 0; --i) std::swap(share[i], share[random.Below(i + 1)]);
    for (double s : share) counts.push_back(static_cast<float>(std::floor(s * scale * (0.9 + 0.2 * random.Unit()))));
  }
  return counts;
}

// A whole plan: 58 layers of 256 experts onto 288 slots of 32 ranks.
void Rebalance(benchmark::State& state, EplbPlacement::Mode mode) {
  const PlacementShape shape{.layers = 58, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8};
  const std::vector<float> weight = SkewedCounts(shape.layers, shape.experts);
  for (auto _ : state) benchmark::DoNotOptimize(Eplb(weight, shape, mode));
}
BENCHMARK_CAPTURE(Rebalance, global, EplbPlacement::GLOBAL)->Name("Eplb/58x256_288_32")->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Rebalance, hierarchical, EplbPlacement::HIERARCHICAL)
    ->Name("EplbHierarchical/58x256_288_32")
    ->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
