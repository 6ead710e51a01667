// Laws of a whole run, and how it must respond to changes of its world.
#include "experiments/run.h"

#include <string>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/replica/replica_choice.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

double Step(const RunReport& report) { return report.summary["step_time_us"]["mean"].get<double>(); }

class RunLaws : public SmallRun {};

TEST_F(RunLaws, TheBreakdownSumsToTheStepTime) {
  const RunReport report = Run().value();
  double sum = 0;
  for (const auto& [stage, us] : report.summary["breakdown_us"].items()) sum += us.get<double>();
  EXPECT_NEAR(sum, Step(report), 1e-9 * Step(report));
  double provenance = 0;
  for (const auto& [source, share] : report.summary["provenance"].items()) provenance += share.get<double>();
  EXPECT_NEAR(provenance, 1, 1e-9);
}

// 64 requests of 40 tokens, 8 ranks x 4 running: all start in two waves of equal length, so there are 80 steps, of
// which the last 60 are scored, with 32 tokens each.
TEST_F(RunLaws, EveryTokenIsReplayedOnce) {
  const RunReport report = Run().value();
  EXPECT_EQ(report.summary["trace"]["steps"], 60);
  EXPECT_EQ(report.summary["trace"]["planning_steps"], 20);
  EXPECT_EQ(report.summary["trace"]["scored_tokens"], 60 * 32);
  EXPECT_EQ(report.step_time_us.size(), 60u);
}

// Combine returns, to every rank that a token visited, one row of the same width in bf16: with bf16 dispatch both move
// the same bytes, so the total is even in row widths (2 * 1024 B) and twice the dispatch.
TEST_F(RunLaws, BytesBalance) {
  const RunReport report = Run().value();
  const int64_t nvlink = report.summary["bytes"]["nvlink"], nic = report.summary["bytes"]["nic"];
  EXPECT_EQ((nvlink + nic) % (2 * 2 * 1024), 0);
  EXPECT_EQ(report.summary["bytes"]["pcie"], 0);
  // A token has 4 experts: it leaves its rank for at most 4 others, once each way, in two layers.
  EXPECT_LE(nvlink + nic, int64_t{60} * 32 * 4 * 2 * 2 * 2048);
  EXPECT_GT(nvlink, 0);
  EXPECT_GT(nic, nvlink) << "4 of 7 other ranks are on the other node";
}

TEST_F(RunLaws, TheReportDoesNotDependOnTheNumberOfThreads) {
  for (int threads : {1, 2, 5}) {
    ASSERT_TRUE(Run({}, {.out = (folder_ / std::to_string(threads)).string(), .threads = threads}).ok());
  }
  for (const char* file : {"summary.json", "steps.csv", "timeline.json", "manifest.txtpb"}) {
    const std::string one = ReadFile((folder_ / "1" / file).string());
    EXPECT_FALSE(one.empty()) << file;
    EXPECT_EQ(one, ReadFile((folder_ / "2" / file).string())) << file;
    EXPECT_EQ(one, ReadFile((folder_ / "5" / file).string())) << file;
  }
}

TEST_F(RunLaws, EveryReplicaChoiceRunsAndGivesTheSameReportForAnyNumberOfThreads) {
  const auto* choices = ReplicaChoiceConfig::descriptor()->FindOneofByName("choice");
  for (int i = 0; i < choices->field_count(); ++i) {
    const std::string name = choices->field(i)->name();
    if (name == "plugin") continue;  // Needs a library: plugin_example_test.
    std::string one;
    for (const int threads : {1, 3}) {
      const std::string out = (folder_ / (name + std::to_string(threads))).string();
      const auto report =
          Run({"placement.policy=eplb", "replica_choice.choice=" + name}, {.out = out, .threads = threads});
      ASSERT_TRUE(report.ok()) << name << ": " << report.status();
      const std::string text = ReadFile(out + "/summary.json");
      if (threads == 1) one = text;
      EXPECT_EQ(text, one) << name;
    }
  }
}

TEST_F(RunLaws, BalancednessAndUtilisationAreSharesOfOne) {
  const RunReport report = Run({"placement.policy=eplb"}).value();
  for (const char* kind : {"tokens", "expert_time"}) {
    EXPECT_GT(report.summary["balancedness"][kind]["mean"], 0);
    EXPECT_LE(report.summary["balancedness"][kind]["mean"], 1);
  }
  EXPECT_LE(report.summary["gpu_utilization"]["busy"], 1);
}

TEST_F(RunLaws, HindsightIsMarkedAndLeavesOutTheSameSteps) {
  const RunReport report = Run({"placement.policy=eplb", "planning.plan=hindsight"}).value();
  EXPECT_EQ(report.summary["hindsight"], true);
  EXPECT_EQ(report.summary["trace"]["steps"], 60);
  EXPECT_EQ(report.summary["trace"]["planning_steps"], 60);
  EXPECT_THAT(report.summary["notes"].dump(), HasSubstr("hindsight"));
}

TEST_F(RunLaws, TheOracleIsMarkedAndBalancesTheScoredStepsAtLeastAsEplbDoes) {
  const RunReport oracle = Run({"placement.policy=oracle"}).value(), past = Run({"placement.policy=eplb"}).value();
  EXPECT_EQ(oracle.summary["placement"], "oracle");
  EXPECT_EQ(oracle.summary["hindsight"], true);
  EXPECT_THAT(oracle.summary["notes"].dump(), HasSubstr("hindsight"));
  EXPECT_EQ(oracle.summary["trace"]["steps"], past.summary["trace"]["steps"]);
  EXPECT_GE(oracle.summary["balancedness"]["tokens"]["aggregate"].get<double>(),
            past.summary["balancedness"]["tokens"]["aggregate"].get<double>());
}

TEST_F(RunLaws, TopologyAwareTakesWhatTheRunTellsIt) {
  const RunReport report = Run({"placement.policy=topology_aware"}).value();
  EXPECT_EQ(report.summary["slots"], 24);
  EXPECT_THAT(report.summary["notes"].dump(), testing::Not(HasSubstr("the exchange is the same")));
  // What every rank hears is the same wherever experts are.
  const RunReport gathered =
      Run({"placement.policy=topology_aware", "communication.communication=allgather_reducescatter"}).value();
  EXPECT_THAT(gathered.summary["notes"].dump(), HasSubstr("the exchange is the same under every placement"));
}

TEST_F(RunLaws, EplbGetsOneRedundantSlotARankUnlessTold) {
  EXPECT_EQ(Run({"placement.policy=eplb"})->summary["slots"], 24);
  EXPECT_EQ(Run({"placement.policy=eplb", "redundant_slots_per_rank=0"})->summary["slots"], 16);
  EXPECT_EQ(Run()->summary["slots"], 16);
}

class RunResponds : public SmallRun {};

TEST_F(RunResponds, FasterLinksAreNeverSlower) {
  const double base = Step(Run().value());
  std::string platform = ReadFile((folder_ / "platform.txtpb").string());
  for (const auto& [slow, fast] : {std::pair{"100 GB/s", "200 GB/s"}, {"25 GB/s", "50 GB/s"}, {"1 TB/s", "2 TB/s"}}) {
    std::string faster = platform;
    faster.replace(faster.find(slow), std::string(slow).size(), fast);
    WriteFile("platform.txtpb", faster);
    EXPECT_LE(Step(Run().value()), base) << fast;
  }
}

TEST_F(RunResponds, EplbBalancesASkewedTrace) {
  WriteTrace("small.eptrace", 64, 40, 30);
  const RunReport contiguous = Run().value(), eplb = Run({"placement.policy=eplb"}).value();
  EXPECT_GT(eplb.summary["balancedness"]["tokens"]["aggregate"].get<double>(),
            contiguous.summary["balancedness"]["tokens"]["aggregate"].get<double>() + 0.1);
}

TEST_F(RunResponds, TheSeedOnlyMattersWhereSomethingIsDrawn) {
  const auto with_seed = [&](const char* seed, std::vector<std::string> set) {
    set.push_back(std::string("seed=") + seed);
    return Run(set)->summary.dump();
  };
  EXPECT_EQ(with_seed("1", {}), with_seed("2", {}));
  // 8 x 16 requests are more than the trace has: they are drawn again.
  const std::vector<std::string> resampled = {"workload.continuous.running_requests_per_rank=16"};
  EXPECT_NE(with_seed("1", resampled), with_seed("2", resampled));
  EXPECT_EQ(with_seed("1", resampled), with_seed("1", resampled));
}

class RunRefuses : public SmallRun {
 protected:
  // The message, after checking that nothing was written.
  std::string Error(std::vector<std::string> set = {}) {
    const std::string out = (folder_ / "out").string();
    const absl::StatusOr<RunReport> report = Run(std::move(set), {.out = out});
    EXPECT_FALSE(report.ok());
    EXPECT_FALSE(std::filesystem::exists(out));
    EXPECT_EQ(report.status().message().find('\n'), absl::string_view::npos);
    return std::string(report.status().message());
  }
};

TEST_F(RunRefuses, AModelThatIsNotTheTraces) {
  EXPECT_THAT(Error({"model=gpt-oss-20b"}),
              HasSubstr("small.eptrace: the trace (small) has 2 MoE layers, the model (gpt-oss-20b) has 24"));
}

TEST_F(RunRefuses, AMissingTrace) { EXPECT_THAT(Error({"trace=none.eptrace"}), HasSubstr("none.eptrace")); }

TEST_F(RunRefuses, UnknownNames) {
  EXPECT_THAT(Error({"model=gtp-oss"}), HasSubstr("gpt-oss-20b"));
  EXPECT_THAT(Error({"platform=h1000"}), HasSubstr("h100-sxm"));
  EXPECT_THAT(Error({"placement.policy=eplp"}), HasSubstr("contiguous, eplb"));
}

TEST_F(RunRefuses, RanksThatDoNotFit) {
  EXPECT_THAT(Error({"ranks=6"}), HasSubstr("ranks"));
  EXPECT_THAT(Error({"ranks=0"}), HasSubstr("ranks: not set"));
}

TEST_F(RunRefuses, AFractionThatLeavesNothing) {
  EXPECT_THAT(Error({"planning.fraction=1"}), HasSubstr("fraction: 1 is not in [0, 1)"));
}

// A flipped bit in the trace is found when its chunk is read, in the middle of the run.
TEST_F(RunRefuses, ADamagedTrace) {
  const std::string path = (folder_ / "small.eptrace").string();
  std::string bytes = ReadFile(path);
  bytes[bytes.size() / 2] ^= 4;
  WriteFile("small.eptrace", bytes);
  EXPECT_THAT(Error(), HasSubstr("small.eptrace"));
}

TEST_F(RunRefuses, AnInterruptedRunLeavesNothing) {
  std::atomic<bool> stop{true};
  const std::string out = (folder_ / "out").string();
  const absl::StatusOr<RunReport> report = Run({}, {.out = out, .stop = StopToken(&stop)});
  EXPECT_EQ(report.status().code(), absl::StatusCode::kCancelled);
  EXPECT_FALSE(std::filesystem::exists(out));
}

}  // namespace
}  // namespace epsim
