#include <cstdint>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/text_proto.h"
#include "traces/synthesis/generator.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

// 58 layers x 256 experts, top-8, Zipf 0.6, a third of the ids kept: the shape of DeepSeek-V3.
SynthesisConfig LargeModel() {
  SynthesisConfig config;
  EPSIM_CHECK(ParseTextProto(R"(
    model: "bench" layers: 58 experts: 256 top_k: 8 seed: 1
    requests { requests: 16 }
    domains { share: 1 lengths { decode_tokens: 1024 } layers { zipf { exponent: 0.6 } } }
    keep_previous: 0.33
  )",
                             "bench", &config)
                  .ok());
  return config;
}

// Routed ids drawn a second, into memory.
void Draws(benchmark::State& state) {
  const SynthesisConfig config = LargeModel();
  constexpr size_t kBlock = 64, kRow = 58 * 8;
  Generator generator(config, 1);
  const std::vector<Generator::Token> tokens(kBlock);
  std::vector<int32_t> ids(kBlock * kRow);
  for (auto _ : state) {
    generator.Draw(tokens, {.ids = ids.data(), .token_stride = kRow, .layer_stride = 8});
    benchmark::DoNotOptimize(ids.data());
    benchmark::ClobberMemory();
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(Draws)->Name("Synthesis/draws");

// ... and into a file, raw or compressed.
void Files(benchmark::State& state) {
  const SynthesisConfig config = LargeModel();
  TraceWriterOptions options;
  options.zstd = state.range(0) != 0;
  for (auto _ : state) {
    EPSIM_CHECK(Synthesize(config, "/tmp/epsim_synthesis_bench.eptrace", options, StopToken()).ok());
  }
  state.SetItemsProcessed(state.iterations() * 16 * 1024 * 58 * 8);
  std::remove("/tmp/epsim_synthesis_bench.eptrace");
}
BENCHMARK(Files)->Name("Synthesis/file")->ArgName("zstd")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
