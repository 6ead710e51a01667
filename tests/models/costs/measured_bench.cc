// Cost of asking the tables: beside roofline_bench.cc.
#include <vector>

#include "benchmark/benchmark.h"
#include "models/costs/measured_cost_model.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

// One histogram of `slots` slots; items are histograms.
void MeasuredRoutedExperts(benchmark::State& state) {
  const ModelSpec model = *FindModel("deepseek-v3");
  CostConfig config;
  config.mutable_precision()->set_expert_weights(FP8);
  config.mutable_measured()->set_fallback(MeasuredConfig::ROOFLINE);
  config = *CompleteCostConfig(config, H200());
  const auto costs =
      *NewMeasuredCostModel(StatedCalibration({model}), config.measured(), config.precision(), true, model, H200());
  std::vector<int32_t> tokens(state.range(0));
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i * 37 % 90);
  for (auto _ : state) {
    benchmark::DoNotOptimize(tokens.data());
    benchmark::ClobberMemory();
    benchmark::DoNotOptimize(costs->RoutedExperts(tokens).time);
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(MeasuredRoutedExperts)->ArgName("slots")->Arg(5)->Arg(9)->Arg(32);

}  // namespace
}  // namespace epsim
