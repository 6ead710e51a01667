// The twin of the Monte-Carlo load on one core, as MonteCarloLoad/256x8_batch4 has it: 4 tokens, 256 experts, top-8, 32
// chips.  One batch is one item.  It reads and writes nothing, so that there is no memory floor.
#include <tbb/global_control.h>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "models/kernels/sampled_load.h"

namespace epsim {
namespace {

void SampledLoadTwin(benchmark::State& state) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const SampledLoadOptions options = {.batches = 100'000, .tokens = 4, .experts = 256, .top_k = 8, .chips = 32};
  ActiveSums sums;
  for (auto _ : state) {
    EPSIM_CHECK(SampleActiveExperts(options, &sums).ok());
    benchmark::DoNotOptimize(sums);
  }
  state.SetItemsProcessed(state.iterations() * options.batches);
}
BENCHMARK(SampledLoadTwin)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
