// The twin of expert choice on one core: 4,096 tokens, 256 experts, top-8, capacity factor 1.25.
#include <tbb/global_control.h>

#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "models/kernels/expert_choice.h"
#include "policies/routing/expert_choice.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/memory_floor.h"

namespace epsim {
namespace {

constexpr size_t kTokens = 4096, kExperts = 256, kTopK = 8;
constexpr size_t kRead = kTokens * kExperts * 4, kWritten = kTokens * (kTopK * 8 + 4);

void ExpertChoiceTwin(benchmark::State& state) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const ExpertChoiceOptions options = {.tokens = kTokens,
                                       .experts = kExperts,
                                       .top_k = kTopK,
                                       .capacity = ExpertCapacity(1.25, kTokens, kTopK, kExperts)};
  const std::vector<float> popularity = DrawNormal(kExperts, 0.3, "expert_choice_twin_bench/popularity");
  const size_t sets = RotatingSets(kRead);
  std::vector<std::vector<float>> scores(sets, DrawNormal(kTokens * kExperts, 1, "expert_choice_twin_bench"));
  for (std::vector<float>& set : scores) {
    for (size_t i = 0; i < set.size(); ++i) set[i] += popularity[i % kExperts];
  }
  std::vector<int32_t> ids(kTokens * kTopK), counts(kTokens);
  std::vector<float> weights(kTokens * kTopK);
  size_t set = 0;
  for (auto _ : state) {
    EPSIM_CHECK(
        ChooseByExperts(options, scores[set], absl::MakeSpan(ids), absl::MakeSpan(counts), absl::MakeSpan(weights))
            .ok());
    benchmark::ClobberMemory();
    set = (set + 1) % sets;
  }
  state.SetItemsProcessed(state.iterations() * kTokens);
}
BENCHMARK(ExpertChoiceTwin)->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(MemoryFloor, ExpertChoiceTwin, kRead, kWritten)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
