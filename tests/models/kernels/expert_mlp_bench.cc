// The twin of the grouped expert MLP, DeepSeek-V3's shape, and what bounds it on the same machine: reading the weights
// once from memory for few tokens, float32 multiply-adds for many.
#include <tbb/parallel_for.h>

#include <map>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "models/kernels/row_products.h"
#include "tests/models/kernels/expert_mlp_case.h"

namespace epsim {
namespace {

constexpr int64_t kHidden = 7168, kInter = 2048;

const expert_mlp_case::Case& CaseOf(NumberType type, int slots, int tokens) {
  static std::map<std::pair<int, int>, expert_mlp_case::Case> cases;
  const auto key = std::pair(static_cast<int>(type) * 1000 + slots, tokens);
  auto found = cases.find(key);
  if (found == cases.end()) {
    cases.clear();  // One at a time in memory.
    const ExpertMlpShape shape = {.hidden = kHidden,
                                  .inter = kInter,
                                  .values = type,
                                  .tokens_per_slot = std::vector<int>(static_cast<size_t>(slots), tokens)};
    found = cases.emplace(key, expert_mlp_case::DrawCase(shape, "bench")).first;
  }
  return found->second;
}

int64_t WeightBytesOf(const expert_mlp_case::Case& mlp) {
  const auto bytes = [](const expert_mlp_case::Narrow& w) {
    return w.fp8.size() + 2 * w.bf16.size() + 4 * w.scales.size();
  };
  return static_cast<int64_t>(bytes(mlp.gate_up) + bytes(mlp.down));
}

void ExpertMlpTwin(benchmark::State& state, NumberType type) {
  const expert_mlp_case::Case& mlp = CaseOf(type, static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  std::vector<uint16_t> y(static_cast<size_t>(mlp.layout.rows() * kHidden));
  for (auto _ : state) {
    ExpertMlpOnCpu(mlp.shape, mlp.inputs(), y.data());
    benchmark::DoNotOptimize(y.data());
  }
  state.SetBytesProcessed(state.iterations() * WeightBytesOf(mlp));
  state.counters["flops"] = benchmark::Counter(
      static_cast<double>(6 * kHidden * kInter * state.range(0) * state.range(1) * state.iterations()),
      benchmark::Counter::kIsRate);
}

// The floor for few tokens: the weights of the same case are read once, on all cores.
void ReadWeights(benchmark::State& state, NumberType type) {
  const expert_mlp_case::Case& mlp = CaseOf(type, static_cast<int>(state.range(0)), static_cast<int>(state.range(1)));
  for (auto _ : state) {
    for (const expert_mlp_case::Narrow* weights : {&mlp.gate_up, &mlp.down}) {
      const auto* words = static_cast<const uint64_t*>(weights->data());
      const auto count = static_cast<int64_t>(weights->fp8.size() / 8 + weights->bf16.size() / 4);
      constexpr int64_t kPart = 1 << 16;
      tbb::parallel_for(int64_t{0}, count / kPart, [&](int64_t part) {
        uint64_t sum[8] = {};
        for (int64_t i = part * kPart; i < (part + 1) * kPart; i += 8) {
          for (int lane = 0; lane < 8; ++lane) sum[lane] += words[i + lane];
        }
        benchmark::DoNotOptimize(sum);
      });
    }
  }
  state.SetBytesProcessed(state.iterations() * WeightBytesOf(mlp));
}

// The floor for many tokens: the inner loop alone, on all cores, its operands in the nearest cache.
void MultiplyAdds(benchmark::State& state) {
  constexpr int64_t kCount = 512, kTiles = 4096;
  const std::vector<float> values(6 * kCount, 0.5f), scales(24, 1.0f);
  const RowProducts& kernel = FastestRowProducts();
  for (auto _ : state) {
    tbb::parallel_for(0, 64, [&](int) {
      float sums[8] = {};
      for (int64_t tile = 0; tile < kTiles; ++tile) {
        kernel.add_tile({.weights = values.data(),
                         .tokens = values.data() + 2 * kCount,
                         .token_stride = kCount,
                         .token_count = 4,
                         .weight_scales = scales.data(),
                         .token_scales = scales.data(),
                         .weight_scale_stride = 4,
                         .token_scale_stride = 4,
                         .count = kCount},
                        sums);
      }
      benchmark::DoNotOptimize(sums);
    });
  }
  state.counters["flops"] = benchmark::Counter(static_cast<double>(64 * kTiles * 16 * kCount * state.iterations()),
                                               benchmark::Counter::kIsRate);
}

void Shapes(benchmark::internal::Benchmark* bench) {
  bench->Args({4, 1})->Args({4, 4})->Args({1, 64})->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(ExpertMlpTwin, bf16, BF16)->Apply(Shapes);
BENCHMARK_CAPTURE(ReadWeights, bf16, BF16)->Args({4, 1})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(ExpertMlpTwin, fp8, FP8)->Apply(Shapes);
BENCHMARK_CAPTURE(ReadWeights, fp8, FP8)->Args({4, 1})->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK(MultiplyAdds)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
}  // namespace epsim
