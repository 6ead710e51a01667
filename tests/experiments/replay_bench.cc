#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "experiments/run.h"
#include "experiments/setup.h"
#include "tests/bench_trace.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

using namespace bench_trace;

// `epsim run` from end to end on one thread, without report files: DeepSeek-V3 on H100s under EPLB (320 slots on 64),
// the steps as recorded.  Items are the routed ids of the scored steps alone: planning reads a quarter more.
void Replay(benchmark::State& state) {
  const BenchTrace& trace = BenchTrace::Get();
  const std::string path = trace.folder() + "/replay.txtpb";
  std::ofstream(path) << R"(trace: "bench.eptrace" model: "deepseek-v3" platform: "h100-sxm" ranks: )" << state.range(0)
                      << R"( workload { recorded {} } placement { eplb {} })";
  const absl::StatusOr<ResolvedExperiment> resolved =
      ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}});
  if (!resolved.ok()) return state.SkipWithError(std::string(resolved.status().message()).c_str());
  int64_t ids = 0;
  for (auto _ : state) {
    const absl::StatusOr<RunReport> report = Run(*resolved, {.threads = 1});
    if (!report.ok()) return state.SkipWithError(std::string(report.status().message()).c_str());
    ids += static_cast<int64_t>(report->step_time_us.size()) * kLayers * static_cast<int64_t>(kLayerIds);
  }
  EPSIM_CHECK(ids > 0);
  state.SetItemsProcessed(ids);
}
BENCHMARK(Replay)->ArgName("ranks")->Arg(kRanks)->Arg(320)->Unit(benchmark::kMillisecond);

// The same for N alternatives together, as `epsim compare` runs them: what ReplaySteps measures is done once, the rest
// by each of them.  Items are the scored ids, N times.
void ReplayAlternatives(benchmark::State& state) {
  const BenchTrace& trace = BenchTrace::Get();
  const std::string path = trace.folder() + "/alternatives.txtpb";
  std::ofstream(path) << R"(trace: "bench.eptrace" model: "deepseek-v3" platform: "h100-sxm" ranks: )" << kRanks
                      << R"( workload { recorded {} } placement { eplb {} })";
  const absl::StatusOr<ResolvedExperiment> resolved =
      ResolveExperiment({.path = path, .trace = {}, .set = {}, .seed = {}});
  if (!resolved.ok()) return state.SkipWithError(std::string(resolved.status().message()).c_str());
  const std::vector<RunRequest> requests(static_cast<size_t>(state.range(0)), {&*resolved, nullptr});
  int64_t ids = 0;
  for (auto _ : state) {
    const absl::StatusOr<std::vector<RunReport>> reports = RunTogether(requests, {.threads = 1});
    if (!reports.ok()) return state.SkipWithError(std::string(reports.status().message()).c_str());
    for (const RunReport& report : *reports) {
      ids += static_cast<int64_t>(report.step_time_us.size()) * kLayers * static_cast<int64_t>(kLayerIds);
    }
  }
  EPSIM_CHECK(ids > 0);
  state.SetItemsProcessed(ids);
}
BENCHMARK(ReplayAlternatives)->Arg(1)->Arg(4)->Unit(benchmark::kMillisecond);

// Decoding the trace and composing its steps, all of them, and nothing else.
void ReplaySteps(benchmark::State& state) {
  const std::string path = BenchTrace::Get().path();
  WorkloadConfig config;
  config.mutable_recorded();
  int64_t ids = 0;
  for (auto _ : state) {
    const absl::StatusOr<std::unique_ptr<TraceReader>> trace = TraceReader::OpenRaw(path, "", {});
    if (!trace.ok()) return state.SkipWithError(std::string(trace.status().message()).c_str());
    const std::unique_ptr<StepSource> source = NewStepSource(config, **trace, kRanks, 1).value();
    while (const StepBatch* batch = source->Next(SimTime{}).value()) ids += int64_t{batch->tokens} * kLayers * kTopK;
  }
  state.SetItemsProcessed(ids);
}
BENCHMARK(ReplaySteps)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
