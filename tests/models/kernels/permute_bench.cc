// The twins of permute and of the weighted return on one core: 4,096 tokens, top-8, 7,168 values of bf16, 256 slots.
#include <tbb/global_control.h>

#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "models/kernels/permute.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/memory_floor.h"

namespace epsim {
namespace {

constexpr size_t kTokens = 4096, kTopK = 8, kSlots = 256, kHidden = 7168;
constexpr size_t kOne = kTokens * kHidden * 2, kMany = kOne * kTopK;
constexpr PermuteOptions kOptions = {.tokens = kTokens, .top_k = kTopK, .slots = kSlots, .ranks = 8};

struct Plan {
  Plan() {
    EPSIM_CHECK(PlanRows(kOptions, slots,
                         {.rows = absl::MakeSpan(rows),
                          .offsets = absl::MakeSpan(offsets),
                          .counts = absl::MakeSpan(counts),
                          .tokens_per_rank = absl::MakeSpan(tokens_per_rank)})
                    .ok());
  }
  std::vector<int32_t> slots = DrawIds(kTokens, kTopK, kSlots, "permute_bench");
  std::vector<int32_t> rows = std::vector<int32_t>(kTokens * kTopK), offsets = std::vector<int32_t>(kSlots + 1);
  std::vector<int32_t> counts = std::vector<int32_t>(kSlots), tokens_per_rank = std::vector<int32_t>(8);
};

void PermutePlan(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(Plan().rows.data());
}
BENCHMARK(PermutePlan)->Unit(benchmark::kMicrosecond);

void Permute(benchmark::State& state) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const Plan plan;
  const std::vector<uint8_t> values(kOne, 1);
  std::vector<uint8_t> permuted(kMany, 2);
  for (auto _ : state) {
    EPSIM_CHECK(
        PermuteRows(kOptions, {.values = kHidden * 2}, plan.rows, values, {}, absl::MakeSpan(permuted), {}).ok());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kOne + kMany));
}
BENCHMARK(Permute)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(MemoryFloor, Permute, kOne, kMany)->Unit(benchmark::kMillisecond);

void Unpermute(benchmark::State& state) {
  const tbb::global_control one(tbb::global_control::max_allowed_parallelism, 1);
  const Plan plan;
  const std::vector<float> weights = DrawNormal(kTokens * kTopK, 1, "permute_bench/weights");
  const std::vector<uint16_t> permuted(kMany / 2, 0x3f80);
  std::vector<uint16_t> out(kOne / 2, 1);
  for (auto _ : state) {
    EPSIM_CHECK(UnpermuteRows(kOptions, kHidden, plan.rows, weights, permuted, absl::MakeSpan(out)).ok());
    benchmark::ClobberMemory();
  }
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(kOne + kMany));
}
BENCHMARK(Unpermute)->Unit(benchmark::kMillisecond);
BENCHMARK_CAPTURE(MemoryFloor, Unpermute, kMany, kOne)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
