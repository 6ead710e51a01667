#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "traces/format/frame.h"
#include "traces/format/id_check.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"

namespace epsim {
namespace {

constexpr int kLayers = 58, kTokens = 16384;

std::vector<int32_t> Ids(int top_k, int experts) {
  std::vector<int32_t> ids(static_cast<size_t>(kLayers) * kTokens * static_cast<size_t>(top_k));
  for (size_t i = 0; i < ids.size(); ++i) {
    const size_t row = i / static_cast<size_t>(top_k), k = i % static_cast<size_t>(top_k);
    ids[i] = static_cast<int32_t>((row * 2654435761u + k * 29) % static_cast<size_t>(experts));
  }
  return ids;
}

// Items are ids.
void IdCheck(benchmark::State& state) {
  const int top_k = static_cast<int>(state.range(0)), id_bytes = static_cast<int>(state.range(1));
  const int experts = 251;
  const std::vector<int32_t> ids = Ids(top_k, experts);
  std::vector<std::byte> bytes(ids.size() * static_cast<size_t>(id_bytes));
  for (size_t i = 0; i < ids.size(); ++i) {
    std::memcpy(bytes.data() + i * static_cast<size_t>(id_bytes), &ids[i], static_cast<size_t>(id_bytes));
  }
  const auto rows = static_cast<int64_t>(ids.size()) / top_k;
  for (auto _ : state) EPSIM_CHECK(IdsAreSound(bytes.data(), id_bytes, rows, top_k, experts));
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(IdCheck)->ArgNames({"top_k", "id_bytes"})->Args({8, 1})->Args({8, 2})->Args({4, 1})->Args({6, 1});

void PayloadChecksum(benchmark::State& state) {
  const std::string bytes(8 << 20, 'x');
  for (auto _ : state) benchmark::DoNotOptimize(Xxh3(bytes));
  state.SetBytesProcessed(state.iterations() * static_cast<int64_t>(bytes.size()));
}
BENCHMARK(PayloadChecksum);

// Opening a raw trace that is in the page cache and visiting every chunk for the first time.  Items are ids.
void ReadTrace(benchmark::State& state) {
  const std::string path = "/tmp/epsim_bench." + std::to_string(getpid()) + ".eptrace";
  TraceHeader header;
  header.set_layers(kLayers);
  header.set_experts(251);
  header.set_top_k(8);
  header.set_granularity(STEP);
  TraceWriterOptions options;
  options.zstd = state.range(0) != 0;
  const std::vector<int32_t> ids = Ids(8, 251);
  {
    auto writer = TraceWriter::Create(path, header, options);
    EPSIM_CHECK(writer.ok());
    for (int step = 0; step < 4; ++step) EPSIM_CHECK((*writer)->AppendStep({}, ids, {}).ok());
    EPSIM_CHECK((*writer)->Finish().ok());
  }
  for (auto _ : state) {
    auto trace = TraceReader::Open(path);
    EPSIM_CHECK(trace.ok());
    for (int64_t i = 0; i < (*trace)->index().chunks_size(); ++i) EPSIM_CHECK((*trace)->ReadChunk(i).ok());
  }
  state.SetItemsProcessed(state.iterations() * 4 * static_cast<int64_t>(ids.size()));
  std::remove(path.c_str());
}
BENCHMARK(ReadTrace)->ArgName("zstd")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
