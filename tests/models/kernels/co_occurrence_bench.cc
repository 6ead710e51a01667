// The twin of co-occurrence on one core: 8,192 tokens, top-8 of 256 experts.
#include <tbb/global_control.h>

#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "models/kernels/co_occurrence.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/memory_floor.h"

namespace epsim {
namespace {

constexpr size_t kTokens = 8192, kTopK = 8, kExperts = 256;

void CoOccurrence(benchmark::State& state) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const size_t sets = RotatingSets(kTokens * kTopK * 4);
  const std::vector<std::vector<int32_t>> ids(sets, DrawIds(kTokens, kTopK, kExperts, "co_occurrence_bench"));
  std::vector<int32_t> counts(kExperts * kExperts);
  size_t set = 0;
  for (auto _ : state) {
    EPSIM_CHECK(
        CountCoOccurrence({.tokens = kTokens, .experts = kExperts, .top_k = kTopK}, ids[set], absl::MakeSpan(counts))
            .ok());
    benchmark::ClobberMemory();
    set = (set + 1) % sets;
  }
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK(CoOccurrence)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(MemoryFloor, CoOccurrence, kTokens* kTopK * 4, kExperts* kExperts * 4)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
