// Whole runs whose costs were measured or are executed, on a clock that states them.
#include <atomic>
#include <cmath>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "tests/experiments/small_run.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

class MeasuredRun : public SmallRun {
 protected:
  // The GPU of the small platform.
  static StatedGpu Gpu() { return {.bandwidth = 1e12, .bf16 = 100e12, .fp8 = 100e12}; }

  void SetUp() override {
    SmallRun::SetUp();
    ModelSpec model;
    ASSERT_TRUE(LoadTextProto((folder_ / "model.txtpb").string(), &model).ok());
    ASSERT_TRUE(WriteStatedCalibration({model}, (folder_ / "tables").string(), Gpu()).ok());
  }

  std::string Measured(const std::string& more = "fallback: ROOFLINE") {
    return "costs.measured={table: \"" + (folder_ / "tables").string() + "\" " + more + "}";
  }
  std::string Replayed(const std::string& more = "") { return "costs.replay={" + more + "}"; }
  std::string Cache() { return "cache: \"" + (folder_ / "cache").string() + "\" "; }

  // Counts what it executes in calls_.
  RunOptions WithClock(int threads = 1) {
    RunOptions options;
    options.threads = threads;
    options.new_clock = [this]() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
      auto clock = std::make_unique<StatedClock>(Gpu());
      clock->on_call = [this](int) {
        if (++calls_ == stop_at_) stop_ = true;
      };
      return clock;
    };
    options.stop = StopToken(&stop_);
    return options;
  }
  static RunOptions WithoutGpu(int threads = 1) {
    RunOptions options;
    options.threads = threads;
    options.new_clock = []() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
      return absl::UnimplementedError("there is no GPU");
    };
    return options;
  }
  static void ExpectSharesAddUp(const RunReport& report) {
    double sum = 0;
    for (const auto& [source, share] : report.summary["provenance"].items()) sum += share.get<double>();
    EXPECT_NEAR(sum, 1, 1e-9);
  }
  static double Experts(const RunReport& report) {
    return report.summary["breakdown_us"]["routed_experts"].get<double>();
  }

  int calls_ = 0, stop_at_ = -1;
  std::atomic<bool> stop_{false};
};

TEST_F(MeasuredRun, MeasuredTimesAndTheirProvenance) {
  const auto report = Run({Measured()});
  ASSERT_TRUE(report.ok()) << report.status();
  const auto& provenance = report->summary["provenance"];
  EXPECT_GT(provenance["measured"].get<double>(), 0.1);
  EXPECT_GT(provenance["roofline"].get<double>(), 0);  // Attention.
  EXPECT_GT(provenance["network"].get<double>(), 0);
  EXPECT_FALSE(provenance.contains("replay"));
  ExpectSharesAddUp(*report);
  EXPECT_THAT(report->summary["notes"].dump(), HasSubstr("times were measured on Stated GPU (132 SMs"));
  EXPECT_THAT(report->summary["notes"].dump(), HasSubstr("not measured, so by roofline: attention"));
}

TEST_F(MeasuredRun, NoFallbackIsAnErrorThatListsWhatIsMissing) {
  const auto report = Run({Measured("")});
  EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(report.status().message()), HasSubstr("has no measurement for attention"));
}

TEST_F(MeasuredRun, ATableBesideTheExperimentIsFoundAndRecorded) {
  const std::string text = ReadFile(experiment_);
  experiment_ =
      WriteFile("measured.experiment", text + "\ncosts { measured { table: \"./tables\" fallback: ROOFLINE } }\n");
  RunOptions options;
  options.out = (folder_ / "out").string();
  const auto report = Run({}, options);
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string manifest = ReadFile((folder_ / "out" / "manifest.txtpb").string());
  EXPECT_THAT(manifest, HasSubstr("tables/expert_mlp.txtpb"));
  EXPECT_THAT(manifest, HasSubstr("fallback: ROOFLINE"));
  EXPECT_THAT(manifest, HasSubstr("permutation: true"));
}

TEST_F(MeasuredRun, ExecutedTimesAndTheirProvenance) {
  const auto report = Run({Replayed()}, WithClock());
  ASSERT_TRUE(report.ok()) << report.status();
  const auto& provenance = report->summary["provenance"];
  EXPECT_GT(provenance["replay"].get<double>(), 0.1);
  EXPECT_FALSE(provenance.contains("extended")) << provenance;
  EXPECT_GT(calls_, 100);
  ExpectSharesAddUp(*report);
}

// What the tables say of histograms that they do not hold is what the clock says of them, and what is extended from a
// fourth of the steps as well.  The model is small: its times are mostly floors and small transfers.
TEST_F(MeasuredRun, TheModelsAgreeOnTheSameGpu) {
  const auto executed = Run({Replayed()}, WithClock());
  const auto measured = Run({Measured()});
  const auto sampled = Run({Replayed("every_steps: 4")}, WithClock());
  ASSERT_TRUE(executed.ok() && measured.ok() && sampled.ok());
  EXPECT_NEAR(Experts(*measured) / Experts(*executed), 1, 0.05);
  EXPECT_NEAR(Experts(*sampled) / Experts(*executed), 1, 0.02);
}

TEST_F(MeasuredRun, AShareIsExecutedAndTheRestIsExtended) {
  const auto report = Run({Replayed("every_steps: 4 ranks: [0, 3]")}, WithClock());
  ASSERT_TRUE(report.ok()) << report.status();
  const auto& provenance = report->summary["provenance"];
  // Routers always have the same tokens and are executed, experts mostly are not.
  EXPECT_GT(provenance["replay"].get<double>(), 0.1);
  EXPECT_GT(provenance["extended"].get<double>(), 0.1);
  ExpectSharesAddUp(*report);
}

TEST_F(MeasuredRun, AtMostSoManyWorksRun) {
  const auto report = Run({Replayed("most_works: 20")}, WithClock());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(calls_, 22);  // And two floors.
  EXPECT_THAT(report->summary["notes"].dump(), HasSubstr("20 distinct works, the most that"));
}

TEST_F(MeasuredRun, ACompleteCacheNeedsNoGpuAndGivesTheSameReport) {
  const auto first = Run({Replayed(Cache() + "every_steps: 2")}, WithClock());
  ASSERT_TRUE(first.ok()) << first.status();
  const int calls = calls_;
  for (const int threads : {1, 4}) {
    const auto again = Run({Replayed(Cache() + "every_steps: 2")}, WithoutGpu(threads));
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->summary.dump(), first->summary.dump());
  }
  EXPECT_EQ(calls_, calls);
  const auto more = Run({Replayed(Cache())}, WithoutGpu());
  EXPECT_EQ(more.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(more.status().message()), HasSubstr("there is no GPU"));
}

TEST_F(MeasuredRun, ThreadsDoNotMatter) {
  const auto one = Run({Replayed("every_steps: 3")}, WithClock(1));
  const auto four = Run({Replayed("every_steps: 3")}, WithClock(4));
  ASSERT_TRUE(one.ok() && four.ok());
  EXPECT_EQ(one->summary.dump(), four->summary.dump());
}

TEST_F(MeasuredRun, InterruptedItKeepsTheCacheAndWritesNoReport) {
  stop_at_ = 40;
  RunOptions options = WithClock();
  options.out = (folder_ / "out").string();
  const auto interrupted = Run({Replayed(Cache())}, options);
  EXPECT_TRUE(absl::IsCancelled(interrupted.status())) << interrupted.status();
  EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_ / "cache"), {}), 41);
  stop_ = false;
  const auto resumed = Run({Replayed(Cache())}, WithClock());
  ASSERT_TRUE(resumed.ok()) << resumed.status();
  const auto in_one_go = Run({Replayed()}, WithClock());
  EXPECT_EQ(resumed->summary.dump(), in_one_go->summary.dump());
}

TEST_F(MeasuredRun, WhatIsNotExecutedMayBeMeasured) {
  const auto report =
      Run({Replayed("measured { table: \"" + (folder_ / "tables").string() + "\" fallback: ROOFLINE }")}, WithClock());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_GT(report->summary["provenance"]["measured"].get<double>(), 0);
  EXPECT_GT(report->summary["provenance"]["replay"].get<double>(), 0);
}

// Alternatives that run together execute each work once.
TEST_F(MeasuredRun, AlternativesShareWhatWasExecuted) {
  const auto resolve = [&](const std::string& set) {
    return *ResolveExperiment({.path = experiment_, .trace = {}, .set = {Replayed(), set}, .seed = {}});
  };
  const ResolvedExperiment one = resolve("redundant_slots_per_rank=0"), same = resolve("redundant_slots_per_rank=0");
  const auto reports = RunTogether({{&one, nullptr}, {&same, nullptr}}, WithClock());
  ASSERT_TRUE(reports.ok()) << reports.status();
  EXPECT_EQ((*reports)[0].summary.dump(), (*reports)[1].summary.dump());
  const int together = calls_;
  calls_ = 0;
  ASSERT_TRUE(Run({Replayed()}, WithClock()).ok());
  EXPECT_EQ(together, calls_);
}

TEST_F(MeasuredRun, OnlineRebalancingWorksWithBoth) {
  for (const std::string& costs : {Measured(), Replayed("every_steps: 5")}) {
    const auto report =
        Run({costs, "placement.policy=eplb", "rebalance.mode=blocking", "rebalance.interval_steps=10"}, WithClock());
    ASSERT_TRUE(report.ok()) << report.status();
    ExpectSharesAddUp(*report);
  }
}

}  // namespace
}  // namespace epsim
