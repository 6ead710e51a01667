// The exact table of 90 cells (10 batches on 9 numbers of chips, 256 experts, top-8), and simulated batches.  One cell
// or one batch is one item.
#include "benchmark/benchmark.h"
#include "models/load/max_expert_load.h"
#include "models/load/sampled_max_load.h"

namespace epsim {
namespace {

void MaxLoad90Cells(benchmark::State& state) {
  for (auto _ : state) {
    for (int64_t batch = 1; batch <= 512; batch *= 2) {
      for (int chips = 1; chips <= 256; chips *= 2) {
        benchmark::DoNotOptimize(ExactMaxExpertLoad({.batch = batch, .chips = chips}).value());
      }
    }
  }
  state.SetItemsProcessed(state.iterations() * 90);
}
BENCHMARK(MaxLoad90Cells)->Name("MaxLoad/90cells")->Unit(benchmark::kMillisecond);

void MonteCarloLoad(benchmark::State& state) {
  constexpr int64_t kBatches = 500'000;
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        SampleMaxLoad({.batch = 4, .chips = 32}, {}, {.samples = kBatches, .threads = 1})->active_experts.mean);
  }
  state.SetItemsProcessed(state.iterations() * kBatches);
}
BENCHMARK(MonteCarloLoad)->Name("MonteCarloLoad/256x8_batch4")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
