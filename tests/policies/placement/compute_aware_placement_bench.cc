#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/placement_policy.h"

namespace epsim {
namespace {

// A whole plan: 58 layers of 256 experts onto 288 slots of 32 ranks, from a window of 32 rows and a profile.
void Place(benchmark::State& state, bool hierarchical) {
  const PlacementShape shape{.layers = 58, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8};
  PlacementPolicyConfig config;
  hierarchical ? config.mutable_compute_aware_hierarchical() : config.mutable_compute_aware();
  const auto policy = NewPlacementPolicy(config, shape).value();
  RandomStream random(1, "compute_aware_placement_bench");
  const size_t row = static_cast<size_t>(shape.layers) * shape.experts, rows = 32;
  std::vector<double> tokens(rows * row), time_per_token(row);
  for (double& t : tokens) t = static_cast<double>((random.Below(1 << 16) >> random.Below(16)));
  for (double& time : time_per_token) time = 1e5 * (0.5 + random.Unit());
  const ExpertProfile profile{.layers = shape.layers, .experts = shape.experts, .time_per_token = time_per_token};
  PlacementRequest request;
  request.window = {.rows = static_cast<int>(rows), .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
  request.profile = &profile;
  request.random = &random;
  for (auto _ : state) benchmark::DoNotOptimize(policy->Place(request));
}
BENCHMARK_CAPTURE(Place, global, false)->Name("Placement/compute_aware")->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(Place, hierarchical, true)
    ->Name("Placement/compute_aware_hierarchical")
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
