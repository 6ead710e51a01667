// How fast rows of requests become the planes of a step: from a raw .eptrace in the page cache, 58 layers of top-8, 64
// ranks with 128 decoding requests each (8,192 tokens a step).  Items are routed ids.
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

constexpr int kLayers = 58, kTopK = 8, kExperts = 256, kRanks = 64, kRequestsPerRank = 128;
constexpr int64_t kTokensPerRequest = 48;

std::string WriteRequests() {
  const std::string path =
      (std::filesystem::temp_directory_path() / ("step_source_bench." + std::to_string(getpid()) + ".eptrace"))
          .string();
  TraceHeader header;
  header.set_schema_version(1);
  header.set_model("bench");
  header.set_layers(kLayers);
  header.set_experts(kExperts);
  header.set_top_k(kTopK);
  header.set_id_bytes(1);
  header.set_granularity(REQUEST);
  header.set_synthetic("benchmark");
  TraceWriterOptions options;
  options.zstd = false;
  absl::StatusOr<std::unique_ptr<TraceWriter>> writer = TraceWriter::Create(path, header, options);
  EPSIM_CHECK(writer.ok());
  RandomStream random(1, "step_source_bench");
  std::vector<int32_t> ids(kTokensPerRequest * kLayers * kTopK);
  const std::vector<uint8_t> phase(kTokensPerRequest, DECODE);
  for (int r = 0; r < kRanks * kRequestsPerRank; ++r) {
    for (size_t i = 0; i < ids.size(); i += kTopK) {
      // Distinct: an odd stride through 256 experts.
      const uint64_t draw = random.Next();
      for (size_t k = 0; k < kTopK; ++k) ids[i + k] = static_cast<int32_t>((draw + k * (draw >> 8 | 1)) & 0xff);
    }
    TokenColumns columns;
    columns.phase = phase;
    RequestInfo request;
    request.set_id(static_cast<uint64_t>(r));
    request.set_tokens(kTokensPerRequest);
    EPSIM_CHECK((*writer)->AppendRequest(request, ids, columns).ok());
  }
  EPSIM_CHECK((*writer)->Finish().ok());
  return path;
}

void StepSourceRanks(benchmark::State& state) {
  const std::string path = WriteRequests();
  {
    absl::StatusOr<std::unique_ptr<TraceReader>> trace = TraceReader::Open(path);
    EPSIM_CHECK(trace.ok());
    WorkloadConfig config;
    config.mutable_continuous()->set_running_requests_per_rank(kRequestsPerRank);
    std::unique_ptr<StepSource> source;
    int64_t ids = 0;
    for (auto _ : state) {
      const StepBatch* batch = nullptr;
      if (source != nullptr) batch = *source->Next(SimTime());
      if (batch == nullptr) {
        state.PauseTiming();
        source = *NewStepSource(config, **trace, static_cast<int>(state.range(0)), 1);
        state.ResumeTiming();
        batch = *source->Next(SimTime());
      }
      benchmark::DoNotOptimize(batch->ids);
      ids += int64_t{batch->tokens} * kLayers * kTopK;
    }
    state.SetItemsProcessed(ids);
  }
  std::filesystem::remove(path);
}
BENCHMARK(StepSourceRanks)->Name("StepSource")->ArgName("ranks")->Arg(kRanks)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
