// How a whole run must respond, under every communication strategy, to faster and slower links and GPUs, and to the
// choices of a strategy.
#include <algorithm>
#include <numeric>
#include <ostream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/small_run.h"
#include "tests/experiments/witnessed_run.h"

namespace epsim {
namespace {

struct Strategy {
  const char* name;
  const char* set;
  bool one_domain = false;
};

const Strategy kStrategies[] = {
    {"AllToAll", "all_to_all {}"},
    {"DeepEpNormal", "deepep_normal {}"},
    {"DeepEpLowLatency", "deepep_low_latency {}"},
    {"DeepEpLowLatencyRdmaOnly", "deepep_low_latency { rdma_only: true }"},
    {"NvlinkOneSided", "nvlink_one_sided {}", true},
    {"NvlinkTwoSided", "nvlink_two_sided {}", true},
    {"AllGatherReduceScatter", "allgather_reducescatter {}"},
    {"AllReduce", "all_reduce {}"},
    {"NcclAllToAll", "nccl_all_to_all {}"},
};

void PrintTo(const Strategy& strategy, std::ostream* out) { *out << strategy.name; }

struct Speeds {
  int nvlink = 200, nic = 25;  // GB/s
};

class StrategyWorld : public SmallRun {
 protected:
  static constexpr int kRanks = 16;

  void SetUp() override {
    SmallRun::SetUp();
    WriteFile("model.txtpb", R"(
      name: "small" layers: 3 moe_layers: 2 hidden: 2048 dense_intermediate: 2048
      experts: 16 top_k: 4 moe_intermediate: 512 shared_experts: 1 shared_intermediate: 512
      expert_groups: 1 top_groups: 1 heads: 8 gqa { kv_heads: 2 head_dim: 128 } vocabulary: 1000 scoring: SOFTMAX)");
    WriteTokens(200, 700);
  }

  void WriteTokens(int least, int most) {
    WriteSteps(Draw({.parts = 12, .least_tokens = least, .most_tokens = most, .sources = kRanks, .skew = 6}), kRanks,
               (folder_ / "small.eptrace").string());
  }

  // Two nodes of 8, or one NVLink domain of 16.
  void WritePlatform(bool one_domain, const Speeds& speeds) {
    WriteFile("platform.txtpb",
              std::string("description: \"a cluster\" gpus_per_node: ") + (one_domain ? "16" : "8") +
                  " gpu { name: \"gpu\" memory: \"80 GB\" memory_bandwidth: \"3 TB/s\" bf16: \"900 TFLOP/s\""
                  " sms: 132 compute_capability: 90 } nvlink { bandwidth: \"" +
                  std::to_string(speeds.nvlink) + " GB/s\" latency: \"2 us\" } nic { bandwidth: \"" +
                  std::to_string(speeds.nic) + " GB/s\" latency: \"3 us\" }");
  }

  ResolvedExperiment Resolve(const std::string& communication, const std::string& more = "") {
    WriteFile("small.experiment",
              "trace: \"small.eptrace\" model: \"model.txtpb\" platform: \"platform.txtpb\" ranks: 16 seed: 7"
              " workload { recorded {} } planning { fraction: 0 } communication { " +
                  communication + " } " + more);
    return ResolveExperiment({.path = experiment_, .trace = {}, .set = {}, .seed = {}}).value();
  }
  RunReport Report(const std::string& communication, const std::string& more = "") {
    const absl::StatusOr<RunReport> report = epsim::Run(Resolve(communication, more), {});
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value();
  }
};

double Total(const RunReport& report) {
  return std::accumulate(report.step_time_us.begin(), report.step_time_us.end(), 0.0);
}

// No step of `changed` is slower than in `base`, but for a picosecond an exchange and `slack` of the step; returns how
// many are faster.
int FasterSteps(const RunReport& base, const RunReport& changed, double slack = 0) {
  constexpr double kRoundingUs = 1e-4;
  EXPECT_EQ(base.step_time_us.size(), 12u);
  EXPECT_EQ(base.step_time_us.size(), changed.step_time_us.size());
  int faster = 0;
  for (size_t i = 0; i < base.step_time_us.size(); ++i) {
    EXPECT_LE(changed.step_time_us[i], (1 + slack) * base.step_time_us[i] + kRoundingUs) << "step " << i;
    faster += changed.step_time_us[i] < base.step_time_us[i] - kRoundingUs;
  }
  return faster;
}

class StrategyResponse : public StrategyWorld, public testing::WithParamInterface<std::tuple<Strategy, const char*>> {
 protected:
  const Strategy& strategy() const { return std::get<0>(GetParam()); }
  std::string network() const { return std::string("network { ") + std::get<1>(GetParam()) + " {} } "; }
  void SetUp() override {
    StrategyWorld::SetUp();
    WritePlatform(strategy().one_domain, {});
  }
};

TEST_P(StrategyResponse, FasterLinksMakeNoStepSlower) {
  const RunReport base = Report(strategy().set, network());
  WritePlatform(strategy().one_domain, {.nvlink = 400});
  const int with_nvlink = FasterSteps(base, Report(strategy().set, network()));
  WritePlatform(strategy().one_domain, {.nic = 50});
  const int with_nic = FasterSteps(base, Report(strategy().set, network()));
  EXPECT_GT(strategy().one_domain ? with_nvlink : with_nic, 0);
}

TEST_P(StrategyResponse, ASlowGpuMakesEveryStepSlowerAndLimitsIt) {
  const RunReport base = Report(strategy().set, network());
  const RunReport slow = Report(strategy().set, network() + "overrides { gpu { rank: 5 speed: 0.5 } }");
  EXPECT_EQ(FasterSteps(slow, base), 12);
  EXPECT_EQ(slow.summary["limiting"]["rank"]["id"], 5) << slow.summary["limiting"];
}

TEST_P(StrategyResponse, ADegradedLinkMakesNoStepFaster) {
  const RunReport base = Report(strategy().set, network());
  for (const std::string link : {"nvlink 3 out", "nvlink 3 in", "nic 3"}) {
    SCOPED_TRACE(link);
    if (strategy().one_domain && link == "nic 3") continue;
    const RunReport degraded =
        Report(strategy().set, network() + "overrides { link { name: \"" + link + "\" bandwidth: \"5 GB/s\" } }");
    EXPECT_EQ(degraded.summary["bytes"], base.summary["bytes"]);
    const int slower = FasterSteps(degraded, base);
    if (std::string(strategy().name) != "DeepEpLowLatencyRdmaOnly" || link == "nic 3") {
      EXPECT_GT(slower, 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Strategies, StrategyResponse,
                         testing::Combine(testing::ValuesIn(kStrategies), testing::Values("port", "max_min")),
                         [](const auto& info) {
                           return std::string(std::get<0>(info.param).name) + "_" + std::get<1>(info.param);
                         });

// A link that carries its bytes by itself never takes longer than the flows that cross it under max-min shares, where
// ranks start together; where one starts late another may be done a little earlier under max-min.
TEST_F(StrategyWorld, PortIsABoundOfMaxMin) {
  for (const Strategy& strategy : kStrategies) {
    SCOPED_TRACE(strategy.name);
    WritePlatform(strategy.one_domain, {});
    FasterSteps(Report(strategy.set, "network { max_min {} }"), Report(strategy.set, "network { port {} }"), 2e-4);
  }
}

class DeepEpResponse : public StrategyWorld {
 protected:
  void SetUp() override {
    StrategyWorld::SetUp();
    WritePlatform(false, {});
  }
};

// A copy for each expert against one for each node: 8 of the 16 experts are on a node, and a token has 4.
TEST_F(DeepEpResponse, LowLatencySendsMoreOverTheNics) {
  const auto nic = [&](const std::string& communication) {
    return Report(communication).summary["bytes"]["nic"].get<int64_t>();
  };
  EXPECT_GT(nic("deepep_low_latency {}"), nic("deepep_normal {}"));
  EXPECT_GT(nic("deepep_low_latency { rdma_only: true }"), nic("deepep_low_latency {}"));
}

TEST_F(DeepEpResponse, NvlinkMakesNoLowLatencyStepSlower) {
  EXPECT_GT(FasterSteps(Report("deepep_low_latency { rdma_only: true }"), Report("deepep_low_latency {}")), 0);
}

// Sum over steps and ranks of the time that stages of a kind take.
double StageTime(const WitnessedRun& run, StageKind kind) {
  double us = 0;
  for (const SeenStep& step : run.steps) {
    for (const SeenStage& stage : step.stages) {
      if (stage.kind != kind) continue;
      for (size_t rank = 0; rank < stage.start.size(); ++rank)
        us += Microseconds(stage.finish[rank] - stage.start[rank]);
    }
  }
  return us;
}

// More SMs copy faster and leave fewer to what runs beside them.  Where no exchange runs beside, nothing changes.
TEST_F(DeepEpResponse, MoreSmsSpeedExchangesAndSlowWhatOverlaps) {
  WritePlatform(false, {.nvlink = 400, .nic = 100});
  WriteTokens(12000, 16000);
  const auto run = [&](int sms) {
    return Witness(Resolve("deepep_normal { sms: " + std::to_string(sms) + " }")).value();
  };
  WitnessedRun last = run(8);
  for (const int sms : {16, 24, 48}) {
    SCOPED_TRACE(std::to_string(sms) + " SMs");
    WitnessedRun more = run(sms);
    // Started by the last rank, so that skew before an exchange does not count.
    for (const StageKind kind : {StageKind::kDispatch, StageKind::kCombine}) {
      for (size_t i = 0; i < more.steps.size(); ++i) {
        for (size_t s = 0; s < more.steps[i].stages.size(); ++s) {
          const SeenStage &now = more.steps[i].stages[s], &before = last.steps[i].stages[s];
          if (now.kind != kind) continue;
          const auto took = [](const SeenStage& stage) {
            return *std::max_element(stage.finish.begin(), stage.finish.end()) -
                   *std::max_element(stage.start.begin(), stage.start.end());
          };
          ASSERT_LE(took(now), took(before) + Duration(1000)) << Name(kind) << ", step " << i;
        }
      }
    }
    EXPECT_GT(StageTime(more, StageKind::kSharedExperts), StageTime(last, StageKind::kSharedExperts));
    EXPECT_EQ(StageTime(more, StageKind::kRoutedExperts), StageTime(last, StageKind::kRoutedExperts));
    EXPECT_EQ(StageTime(more, StageKind::kAttention), StageTime(last, StageKind::kAttention));
    last = std::move(more);
  }
}

// Where exchanges take about as long as attention and experts, or longer, those of one half hide behind the computing
// of the other.  Two streams at once are at most twice as fast as one after the other.
TEST_F(DeepEpResponse, TwoBatchOverlapGainsWhereCommunicationDominates) {
  WriteTokens(20000, 24000);
  for (const std::string order : {"PREFILL", "DECODE"}) {
    for (const Speeds& speeds : {Speeds{.nvlink = 50, .nic = 10}, Speeds{.nvlink = 200, .nic = 25}}) {
      SCOPED_TRACE(order + ", NIC of " + std::to_string(speeds.nic) + " GB/s");
      WritePlatform(false, speeds);
      const RunReport whole = Report("deepep_normal {}");
      const RunReport halves =
          Report("deepep_normal {}", "schedule { external { two_batch_overlap { order: " + order + " } } }");
      ASSERT_EQ(halves.step_time_us.size(), whole.step_time_us.size());
      for (size_t i = 0; i < whole.step_time_us.size(); ++i) {
        EXPECT_LE(halves.step_time_us[i], 1.02 * whole.step_time_us[i]) << "step " << i;
      }
      EXPECT_LT(Total(halves), 0.95 * Total(whole));
      EXPECT_GT(Total(halves), 0.5 * Total(whole));
    }
  }
}

}  // namespace
}  // namespace epsim
