// What a plan costs with each placement policy, over every alternative of the oneof: a re-plan of DeepSeek-V3's 58
// layers of 256 experts onto 288 slots of 32 ranks on 4 nodes, by 32 rows of loads, from the placement that the same
// policy made of other loads before.
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/placement_policy.h"

namespace epsim {
namespace {

constexpr PlacementShape kShape{
    .layers = 58, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8};
constexpr int kRows = 32;

// Popularity of the experts of each layer: Zipf with exponent 0.8, hot experts anywhere.  Mean 1.  [layers, experts]
std::vector<double> DrawPopularity(RandomStream* random) {
  std::vector<double> share(kShape.experts), popularity;
  for (int i = 0; i < kShape.experts; ++i) share[i] = std::pow(i + 1, -0.8);
  const double sum = std::accumulate(share.begin(), share.end(), 0.0);
  for (int layer = 0; layer < kShape.layers; ++layer) {
    for (int i = kShape.experts - 1; i > 0; --i) std::swap(share[i], share[random->Below(i + 1)]);
    for (double s : share) popularity.push_back(s * kShape.experts / sum);
  }
  return popularity;
}

// Counts of 1,024 tokens an expert in the mean, each row up to half off.  [rows, layers, experts]
std::vector<double> DrawLoads(const std::vector<double>& popularity, RandomStream* random) {
  std::vector<double> tokens;
  for (int row = 0; row < kRows; ++row) {
    for (double p : popularity) tokens.push_back(std::floor(1024 * p * (0.5 + random->Unit())));
  }
  return tokens;
}

// `first` is timed without a previous placement, else the re-plan.  Policies that keep state begin anew each time.
void Plan(benchmark::State& state, const std::string& name, bool first) {
  RandomStream draw(1, "placement_bench");
  std::vector<double> popularity = DrawPopularity(&draw);
  const std::vector<double> before = DrawLoads(popularity, &draw);
  for (double& p : popularity) p *= 0.5 + draw.Unit();  // The traffic has changed.
  const std::vector<double> now = DrawLoads(popularity, &draw);
  std::vector<double> picoseconds(popularity.size());
  for (double& time : picoseconds) time = std::floor(1e6 * (0.5 + draw.Unit()));
  const ExpertProfile profile{.layers = kShape.layers, .experts = kShape.experts, .time_per_token = picoseconds};

  PlacementPolicyConfig config;
  config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(name));
  RandomStream random(1, "placement");
  PlacementRequest request;
  request.profile = &profile;
  request.random = &random;
  const auto plan = [&](PlacementPolicy& policy, const std::vector<double>& tokens, const Placement* previous) {
    request.window = {.rows = kRows, .layers = kShape.layers, .experts = kShape.experts, .tokens = tokens};
    request.previous = previous;
    return policy.Place(request);
  };
  for (auto _ : state) {
    state.PauseTiming();
    const absl::StatusOr<std::unique_ptr<PlacementPolicy>> policy = NewPlacementPolicy(config, kShape);
    if (!policy.ok()) return state.SkipWithError(std::string(policy.status().message()).c_str());
    Placement previous;
    if (!first) {
      absl::StatusOr<Placement> placement = plan(**policy, before, nullptr);
      if (!placement.ok()) return state.SkipWithError(std::string(placement.status().message()).c_str());
      previous = *std::move(placement);
    }
    state.ResumeTiming();
    const absl::StatusOr<Placement> planned = plan(**policy, now, first ? nullptr : &previous);
    benchmark::DoNotOptimize(planned);
    if (!planned.ok()) return state.SkipWithError(std::string(planned.status().message()).c_str());
  }
}

const bool kRegistered = [] {
  const auto* policies = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  for (int i = 0; i < policies->field_count(); ++i) {
    const std::string name = policies->field(i)->name();
    benchmark::RegisterBenchmark(("Placement/" + name).c_str(), Plan, name, /*first=*/false)
        ->Unit(benchmark::kMillisecond);
    benchmark::RegisterBenchmark(("PlacementFirst/" + name).c_str(), Plan, name, /*first=*/true)
        ->Unit(benchmark::kMillisecond);
  }
  return true;
}();

}  // namespace
}  // namespace epsim
