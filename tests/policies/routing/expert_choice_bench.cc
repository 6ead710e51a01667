#include <cmath>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/routing/routing_policy.h"

namespace epsim {
namespace {

// One layer of one source rank: 4,096 tokens, 256 experts, top-8, logits of a skewed router.
void RouteByExpertChoice(benchmark::State& state) {
  constexpr int kTokens = 4096, kExperts = 256, kTopK = 8;
  RandomStream random(1, "expert_choice_bench");
  std::vector<float> popularity(kExperts), scores;
  for (float& expert : popularity) expert = static_cast<float>(random.Unit());
  for (int i = 0; i < kTokens * kExperts; ++i) {
    const double gauss = std::sqrt(-2 * std::log(1 - random.Unit())) * std::cos(6.283185307179586 * random.Unit());
    scores.push_back(popularity[i % kExperts] + static_cast<float>(gauss));
  }
  const std::vector<uint16_t> own(kTokens * kTopK);
  const std::vector<uint8_t> own_count(kTokens, kTopK);
  RoutingPolicyConfig config;
  config.mutable_expert_choice();
  const auto policy = NewRoutingPolicy(config, {.layers = 1, .experts = kExperts, .top_k = kTopK, .ranks = 32}).value();
  RoutingChoice choice;
  for (auto _ : state) {
    policy->Route(Layer{0}, {.tokens = kTokens, .scores = scores, .own = own, .own_count = own_count}, &choice);
    benchmark::DoNotOptimize(choice.experts.data());
  }
}
BENCHMARK(RouteByExpertChoice)->Name("ExpertChoice/4096x256")->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
