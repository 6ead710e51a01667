// The router's twin on one core: 8,192 tokens, 256 experts, top-8.  Each with the memory floor of the same bytes.
#include <tbb/global_control.h>

#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "models/kernels/router.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/memory_floor.h"

namespace epsim {
namespace {

constexpr size_t kTokens = 8192, kExperts = 256, kTopK = 8;
constexpr size_t kRead = kTokens * kExperts * 4, kWritten = kTokens * kTopK * 8;

void Router(benchmark::State& state, RouterOptions options, bool biased) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  options.tokens = kTokens, options.experts = kExperts, options.top_k = kTopK;
  const size_t sets = RotatingSets(kRead);
  std::vector<std::vector<float>> logits(sets, DrawNormal(kTokens * kExperts, 1.5, "router_bench"));
  const std::vector<float> bias = biased ? DrawNormal(kExperts, 0.1, "router_bench/bias") : std::vector<float>();
  std::vector<int32_t> ids(kTokens * kTopK);
  std::vector<float> weights(kTokens * kTopK);
  size_t set = 0;
  for (auto _ : state) {
    EPSIM_CHECK(RouteTokens(options, logits[set], bias, absl::MakeSpan(ids), absl::MakeSpan(weights)).ok());
    benchmark::ClobberMemory();
    set = (set + 1) % sets;
  }
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK_CAPTURE(Router, softmax_renormalized, {}, false)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Router, softmax, {.renormalize = false}, false)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(Router, deepseek_v3,
                  {.scoring = RouterScoring::kSigmoid,
                   .groups = 8,
                   .top_groups = 4,
                   .group_rank = GroupRank::kBestTwo,
                   .scaling = 2.5f},
                  true)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(MemoryFloor, Router, kRead, kWritten)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
