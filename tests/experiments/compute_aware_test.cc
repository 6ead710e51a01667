// Balancing by time where experts of one layer differ in cost, from profiling to the report.  Published of such a
// balancer in production: utilisation of the GPUs (the least over the most busy) from 40-60 % to 75-90 %, throughput up
// by 15-30 %, p99 of the step time down by 10-20 %; profiling costs less than 2 %.
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "tests/experiments/small_run.h"
#include "traces/synthesis/synthesis.h"

namespace epsim {
namespace {

// Prefill on 8 GPUs of one node, as many tokens in every step: experts compute for 0.8 of it.  64 experts with Zipf
// popularity in each of two layers; where a policy goes by load, 9 slots a rank.  Serving goes on to be profiled for
// the plans that follow, the first of them due after 1,000 steps, when these runs have ended.
class ComputeAware : public SmallRun {
 protected:
  static constexpr int kSmallSteps = 80, kSmallPlanned = 20;  // A quarter is planned on.

  void SetUp() override {
    SmallRun::SetUp();
    WriteFile("wide.txtpb", R"(
      name: "wide" layers: 2 moe_layers: 2 hidden: 2048 experts: 64 top_k: 4 moe_intermediate: 4096
      expert_groups: 1 top_groups: 1 heads: 16 gqa { kv_heads: 4 head_dim: 128 } vocabulary: 1000 scoring: SOFTMAX)");
    experiment_ = WriteFile("compute_aware.txtpb", R"(
      trace: "prefill.eptrace" model: "wide.txtpb" platform: "h100-sxm" ranks: 8 workload { recorded {} }
      costs { expert_cost_scale { spread: 0.8 } } rebalance { blocking {} })");
    DrawTrace(kSmallSteps, 128);
  }

  void DrawTrace(int steps, int tokens_per_rank) {
    SynthesisConfig synthesis;
    const absl::Status parsed =
        ParseTextProto(absl::StrCat(R"(model: "wide" layers: 2 experts: 64 top_k: 4 seed: 1 description: "a test"
                        steps { source_ranks: 8 steps: )",
                                    steps, " tokens_per_rank: ", tokens_per_rank, R"( }
                        domains { name: "prefill" share: 1 lengths { prefill_tokens: 1024 }
                                  layers { zipf { exponent: 0.5 } } })"),
                       "synthesis", &synthesis);
    ASSERT_TRUE(parsed.ok()) << parsed;
    const absl::Status drawn = Synthesize(synthesis, (folder_ / "prefill.eptrace").string(), {}, {});
    ASSERT_TRUE(drawn.ok()) << drawn;
  }

  // Each with its own settings, on the same steps.
  std::vector<RunReport> Together(const std::vector<std::vector<std::string>>& settings) {
    std::vector<ResolvedExperiment> resolved;
    for (const std::vector<std::string>& set : settings) {
      auto one = ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}});
      EXPECT_TRUE(one.ok()) << one.status();
      resolved.push_back(one.value());
    }
    std::vector<RunRequest> requests;
    for (const ResolvedExperiment& one : resolved) requests.push_back({&one, nullptr});
    return RunTogether(requests, {}).value();
  }

  RunReport Report(std::vector<std::string> set) {
    absl::StatusOr<RunReport> report = Run(std::move(set));
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? *std::move(report) : RunReport{};
  }
};

double StepTime(const RunReport& report) { return report.summary["step_time_us"]["mean"].get<double>(); }

struct Figures {
  double utilization = 0, balancedness = 0, step_us = 0, tokens_per_s = 0, p99_us = 0;

  explicit Figures(const RunReport& report)
      : utilization(report.summary["gpu_utilization"]["min_over_max"].get<double>()),
        balancedness(report.summary["balancedness"]["expert_time"]["mean"].get<double>()),
        step_us(StepTime(report)),
        tokens_per_s(report.summary["tokens_per_s"].get<double>()),
        p99_us(report.summary["step_time_us"]["p99"].get<double>()) {}
};

// Costs are drawn with a spread with which EPLB, to which all experts cost the same, gets what the published systems
// had without compute_aware; what that makes of it is then the simulation's answer.  Means of six draws, in the ranges
// published:
//              utilization   throughput   p99
//   eplb          0.56
//   alpha 0.5     0.80          +21 %     -17 %
//   alpha 1       0.91          +26 %
// Compute time alone is what this prefill waits for.  No draw is an exception; the least of their gains are +8 % and
// -7 %.  Where most of a tile is empty tokens say less of time than alpha 1 takes them to: one draw is a hair slower
// than with alpha 0.5.  What profiling costs, 2 us of some 1,300, is in the figures.
TEST_F(ComputeAware, GainsAsPublishedWhereExpertsDifferInCost) {
  DrawTrace(680, 1024);  // 510 are scored: a p99 needs 500.
  constexpr int kDraws = 6;
  double before = 0, after = 0, throughput = 0, p99 = 0, by_time_after = 0, by_time_throughput = 0;
  for (int draw = 1; draw <= kDraws; ++draw) {
    const std::string seed = absl::StrCat("seed=", draw);
    const std::vector<RunReport> reports = Together({{seed, "placement.policy=eplb"},
                                                     {seed, "placement.policy=compute_aware"},
                                                     {seed, "placement.compute_aware.alpha=1"}});
    const Figures eplb(reports[0]), aware(reports[1]), by_time(reports[2]);
    for (const Figures& better : {aware, by_time}) {
      EXPECT_GT(better.utilization, eplb.utilization + 0.09) << seed;
      EXPECT_GT(better.balancedness, eplb.balancedness + 0.05) << seed;
      EXPECT_LT(better.step_us, 0.93 * eplb.step_us) << seed;
      EXPECT_GT(better.tokens_per_s, 1.07 * eplb.tokens_per_s) << seed;
      EXPECT_LT(better.p99_us, 0.94 * eplb.p99_us) << seed;
    }
    EXPECT_GT(by_time.utilization, aware.utilization) << seed;
    EXPECT_GT(by_time.utilization, 0.84) << seed;
    EXPECT_LT(by_time.step_us, 1.005 * aware.step_us) << seed;
    before += eplb.utilization / kDraws;
    after += aware.utilization / kDraws;
    throughput += (aware.tokens_per_s / eplb.tokens_per_s - 1) / kDraws;
    p99 += (aware.p99_us / eplb.p99_us - 1) / kDraws;
    by_time_after += by_time.utilization / kDraws;
    by_time_throughput += (by_time.tokens_per_s / eplb.tokens_per_s - 1) / kDraws;
  }
  std::printf("utilization %.3f -> %.3f, throughput %+.3f, p99 %+.3f; alpha 1: %.3f, %+.3f\n", before, after,
              throughput, p99, by_time_after, by_time_throughput);
  EXPECT_GT(before, 0.4);
  EXPECT_LT(before, 0.6);
  EXPECT_GT(after, 0.75);
  EXPECT_LT(after, 0.9);
  EXPECT_GT(throughput, 0.15);
  EXPECT_LT(throughput, 0.3);
  EXPECT_LT(p99, -0.1);
  EXPECT_GT(by_time_throughput, throughput);
  EXPECT_GT(p99, -0.2);
}

// Experts of equal cost: profiling finds nothing to go by.
TEST_F(ComputeAware, GainsNothingWhereExpertsAreAlike) {
  const std::string alike = "costs.expert_cost_scale.spread=0";
  const double eplb = StepTime(Report({alike, "placement.policy=eplb"}));
  const double aware = StepTime(Report({alike, "profiler.overhead=0 us", "placement.policy=compute_aware"}));
  EXPECT_NEAR(aware, eplb, 0.02 * eplb);
}

TEST_F(ComputeAware, AtAlphaZeroReportsAsEplbDoesButForItsName) {
  RunReport eplb = Report({"placement.policy=eplb"});
  RunReport aware = Report({"placement.compute_aware.alpha=0", "profiler.overhead=0 us"});
  EXPECT_EQ(aware.summary["placement"], "compute_aware");
  aware.summary["placement"] = "eplb";
  EXPECT_EQ(aware.summary.dump(), eplb.summary.dump());
  EXPECT_EQ(aware.step_time_us, eplb.step_time_us);
  // Not because nothing could differ.
  EXPECT_NE(Report({"placement.compute_aware.alpha=0.5", "profiler.overhead=0 us"}).step_time_us, eplb.step_time_us);
}

// All ranks are later by the overhead in every layer of a profiled step, and nothing else changes: what is measured is
// the kernels.  Steps are counted from the first, planned or scored: after 10 steps of warm-up, the first scored one is
// 20 - 10 = 10 steps on, so that at interval 4 the third is the first that is profiled.
TEST_F(ComputeAware, ProfilingTakesItsOverheadInEachLayerOfEachProfiledStep) {
  const std::string policy = "placement.policy=compute_aware";
  const std::vector<double> free = Report({policy, "profiler.overhead=0 us"}).step_time_us;
  const std::vector<double> always = Report({policy}).step_time_us;
  const std::vector<double> dear = Report({policy, "profiler.overhead=7.5 us"}).step_time_us;
  ASSERT_EQ(free.size(), size_t{kSmallSteps - kSmallPlanned});
  ASSERT_EQ(always.size(), free.size());
  ASSERT_EQ(dear.size(), free.size());
  for (size_t step = 0; step < free.size(); ++step) {
    EXPECT_NEAR(always[step] - free[step], 2 * 1, 1e-9) << step;
    EXPECT_NEAR(dear[step] - free[step], 2 * 7.5, 1e-9) << step;
    EXPECT_LT(always[step], 1.02 * free[step]) << step;
  }

  const std::vector<double> free_sampled =
      Report({policy, "profiler.overhead=0 us", "profiler.interval_steps=4"}).step_time_us;
  const std::vector<double> sampled = Report({policy, "profiler.interval_steps=4"}).step_time_us;
  for (size_t step = 0; step < free.size(); ++step) {
    EXPECT_NEAR(sampled[step] - free_sampled[step], step % 4 == 2 ? 2 : 0, 1e-9) << step;
  }
}

// A placement that stays is planned once, and then no more is measured.
TEST_F(ComputeAware, WhereNothingIsRebalancedProfilingEndsWithThePlan) {
  const std::string policy = "placement.policy=compute_aware", stays = "rebalance.mode=none";
  EXPECT_EQ(Report({policy, stays}).step_time_us, Report({policy, "profiler.overhead=0 us"}).step_time_us);
}

// Warm-up ends in the 11th scored step: the plan is EPLB's, made without a profile.
TEST_F(ComputeAware, WithoutAProfilePlansAsEplbAndPaysOnceWarm) {
  const std::vector<double> eplb = Report({"placement.policy=eplb"}).step_time_us;
  const std::vector<double> cold =
      Report({"placement.policy=compute_aware", absl::StrCat("profiler.warm_up_steps=", kSmallPlanned + 10)})
          .step_time_us;
  ASSERT_EQ(cold.size(), eplb.size());
  for (size_t step = 0; step < eplb.size(); ++step) {
    EXPECT_NEAR(cold[step] - eplb[step], step >= 10 ? 2 : 0, 1e-9) << step;
  }
}

}  // namespace
}  // namespace epsim
