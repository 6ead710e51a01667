// Cost of asking for a cost: routed experts are asked for once a rank, layer and step.
#include <vector>

#include "benchmark/benchmark.h"
#include "models/catalogue.h"
#include "models/costs/cost_model.h"

namespace epsim {
namespace {

std::unique_ptr<CostModel> DeepSeekOnH200() {
  GpuSpec gpu;
  gpu.set_name("H200-SXM");
  gpu.set_memory_bandwidth("4.8 TB/s");
  gpu.set_bf16("989 TFLOP/s");
  gpu.set_fp8("1978 TFLOP/s");
  gpu.set_sms(132);
  gpu.set_compute_capability(90);
  CostConfig config;
  config.mutable_precision()->set_expert_weights(FP8);
  return *NewCostModel(config, *FindModel("deepseek-v3"), gpu);
}

// One histogram of `slots` slots; items are histograms.
void RooflineRoutedExperts(benchmark::State& state) {
  const auto costs = DeepSeekOnH200();
  std::vector<int32_t> tokens(state.range(0));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 % 90);
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokens.data());
    benchmark::ClobberMemory();
    benchmark::DoNotOptimize(costs->RoutedExperts(tokens).time);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(RooflineRoutedExperts)->ArgName("slots")->Arg(5)->Arg(9)->Arg(36);

void RooflineAttention(benchmark::State& state) {
  const auto costs = DeepSeekOnH200();
  AttentionLoad load = {.tokens = 128,
                        .sequences = 128,
                        .decode_tokens = 128,
                        .attended_tokens = 128'000,
                        .context_tokens = 128'000,
                        .output_tokens = 128};
  for (auto _ : state) {
    benchmark::DoNotOptimize(load);
    benchmark::DoNotOptimize(costs->Attention(load).time);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(RooflineAttention);

}  // namespace
}  // namespace epsim
