#include <filesystem>
#include <fstream>
#include <string>

#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "experiments/run.h"
#include "experiments/setup.h"
#include "tests/bench_trace.h"

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

}  // namespace
}  // namespace epsim
