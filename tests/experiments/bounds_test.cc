// Alternatives that run side by side: each reports what it would alone, and none beats the perfect balance.
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/drawn_trace.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

class Bounds : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    WriteFile("model.txtpb", R"(
      name: "small" layers: 3 moe_layers: 2 hidden: 2048 dense_intermediate: 2048
      experts: 16 top_k: 4 moe_intermediate: 512 shared_experts: 1 shared_intermediate: 512
      expert_groups: 1 top_groups: 1 heads: 8 gqa { kv_heads: 2 head_dim: 128 } vocabulary: 1000 scoring: SOFTMAX)");
  }

  void WriteExperiment(const std::string& platform, int ranks, const std::string& more) {
    WriteFile("small.experiment", R"(trace: "small.eptrace" model: "model.txtpb" seed: 7 workload { recorded {} }
      platform: ")" + platform +
                                      "\" ranks: " + std::to_string(ranks) + " " + more);
  }
  ResolvedExperiment Resolve(const std::vector<std::string>& set) {
    return ResolveExperiment({.path = experiment_, .trace = {}, .set = set, .seed = {}}).value();
  }
  // Runs the alternatives, and behind them the perfect balance of all.
  absl::StatusOr<std::vector<RunReport>> RunWithBound(const std::vector<std::vector<std::string>>& alternatives) {
    std::vector<ResolvedExperiment> resolved;
    for (const auto& set : alternatives) resolved.push_back(Resolve(set));
    resolved.push_back(Resolve({}));
    std::vector<RunRequest> requests;
    for (const ResolvedExperiment& experiment : resolved) requests.push_back({&experiment, nullptr});
    for (size_t i = 0; i < alternatives.size(); ++i) requests.back().bound_of.push_back(i);
    return RunTogether(requests, {.threads = 1});
  }
};

const std::vector<std::vector<std::string>> kAlternatives = {
    {"placement.policy=contiguous"},
    {"placement.policy=eplb"},
    {"placement.policy=eplb", "redundant_slots_per_rank=2", "replica_choice.choice=dynamic"},
    {"placement.policy=vllm", "planning.plan=hindsight"},
    {"placement.policy=oracle"},
    {"placement.policy=random"},
    {"placement.policy=eplb", "rebalance.mode=blocking", "rebalance.interval_steps=3"},
    {"placement.policy=eplb", "planning.plan=cold", "rebalance.mode=async_layer", "rebalance.interval_steps=3"},
};

struct Strategy {
  const char *name, *set;
  bool nvlink_only = false;
};
const Strategy kStrategies[] = {
    {"AllToAll", "all_to_all {}"},
    {"DeepEpNormal", "deepep_normal {}"},
    {"DeepEpLowLatency", "deepep_low_latency {}"},
    {"NvlinkOneSided", "nvlink_one_sided {}", true},
    {"NvlinkTwoSided", "nvlink_two_sided {}", true},
    {"AllGatherReduceScatter", "allgather_reducescatter {}"},
    {"AllReduce", "all_reduce {}"},
    {"NcclAllToAll", "nccl_all_to_all {}"},
};
void PrintTo(const Strategy& strategy, std::ostream* out) { *out << strategy.name; }

class PerfectBalance : public Bounds, public testing::WithParamInterface<Strategy> {
 protected:
  // Runs the alternatives on one node and on two, on traces of different skew, whole and in pieces.  With `even`, every
  // rank has as many decode tokens as any other, else what the draw gives it, prompts among them.  No step of the bound
  // takes longer than the same step of an alternative.
  void Compare(bool even) {
    int runs = 0;
    for (const double skew : {1.0, 4.0, 40.0}) {
      for (const int most_tokens : {40, 400}) {
        WriteSteps(Steps(even, skew, most_tokens), 16, (folder_ / "small.eptrace").string());
        for (const int ranks : {8, 16}) {
          for (const char* schedule :
               {"external {}", "external { padding: ALWAYS }", "external { two_batch_overlap { order: DECODE } }",
                "external {} max_tokens: 64", "external { chunk_overlap: true } max_tokens: 64",
                "fused {} max_tokens: 64", "external {} overlap_shared_experts: false"}) {
            SCOPED_TRACE(std::string(schedule) + ", skew " + std::to_string(skew) + ", " + std::to_string(ranks) +
                         " ranks, up to " + std::to_string(most_tokens) + " tokens");
            const bool domain = GetParam().nvlink_only;
            WriteExperiment(domain ? "gb200-nvl72" : "h100-sxm", domain ? ranks / 2 : ranks,
                            std::string("communication { ") + GetParam().set + " } schedule { " + schedule + " }");
            const absl::StatusOr<std::vector<RunReport>> reports = RunWithBound(kAlternatives);
            if (!reports.ok()) {  // A schedule that the strategy does not take.
              EXPECT_TRUE(absl::IsInvalidArgument(reports.status()) || absl::IsFailedPrecondition(reports.status()))
                  << reports.status();
              continue;
            }
            ++runs;
            CheckBound(*reports);
          }
        }
      }
    }
    EXPECT_GE(runs, 36) << "three schedules at least, on each trace and machine";
  }

 private:
  static DrawnTrace Steps(bool even, double skew, int most_tokens) {
    DrawnTrace trace = Draw({.parts = 12,
                             .least_tokens = 20,
                             .most_tokens = most_tokens,
                             .most_prefill = even ? 0 : 16,
                             .sources = 16,
                             .skew = skew,
                             .seed = static_cast<uint64_t>(skew) + most_tokens});
    for (std::vector<DrawnToken>& step : trace) {
      if (!even) break;
      step.resize(step.size() / 16 * 16);
      for (size_t t = 0; t < step.size(); ++t) step[t].source = static_cast<uint16_t>(t * 16 / step.size());
    }
    return trace;
  }

  static void CheckBound(const std::vector<RunReport>& reports) {
    const RunReport& bound = reports.back();
    EXPECT_EQ(bound.summary["placement"], "perfect_balance");
    EXPECT_THAT(bound.summary["notes"].dump(), HasSubstr("a bound, not a policy"));
    EXPECT_NEAR(bound.summary["balancedness"]["expert_time"]["mean"].get<double>(), 1, 1e-12);
    for (size_t i = 0; i < kAlternatives.size(); ++i) {
      const RunReport& other = reports[i];
      ASSERT_EQ(other.step_time_us.size(), bound.step_time_us.size());
      for (size_t step = 0; step < bound.step_time_us.size(); ++step) {
        EXPECT_LE(bound.step_time_us[step], other.step_time_us[step])
            << "alternative " << i << ", " << kAlternatives[i][0] << ", step " << step;
      }
    }
  }
};

TEST_P(PerfectBalance, NoStepBeatsItWhereRanksHaveEquallyManyTokens) { Compare(true); }

// With a[r] of attention on rank r and e[r] of experts behind, ranks meet again at max over r of (a[r] + e[r]), which
// can be less than max a + mean e, but not than mean a + mean e.
TEST_P(PerfectBalance, NoStepBeatsItWhereRanksHaveUnequalTokens) { Compare(false); }

INSTANTIATE_TEST_SUITE_P(All, PerfectBalance, testing::ValuesIn(kStrategies),
                         [](const testing::TestParamInfo<Strategy>& info) { return info.param.name; });

// Each of the 8 ranks has 4 tokens, which want the 16 experts once each, four experts of two neighbouring ranks at a
// time: under the contiguous placement every pair of ranks exchanges one token, and every expert has 8.
TEST_F(Bounds, APerfectlyBalancedRunIsItsOwnBound) {
  DrawnTrace trace(8);
  for (std::vector<DrawnToken>& step : trace) {
    for (int rank = 0; rank < 8; ++rank) {
      for (int t = 0; t < 4; ++t) {
        DrawnToken& token = step.emplace_back();
        token.source = static_cast<uint16_t>(rank);
        for (auto& layer : token.ids) {
          for (int k = 0; k < 4; ++k) layer[k] = 4 * t + k;
        }
      }
    }
  }
  WriteSteps(trace, 8, (folder_ / "small.eptrace").string());
  for (const char* platform : {"h100-sxm", "platform.txtpb"}) {
    WriteExperiment(platform, 8, "");
    const std::vector<RunReport> reports = RunWithBound({{"placement.policy=contiguous"}}).value();
    EXPECT_EQ(reports[0].summary["balancedness"]["tokens"]["mean"], 1);
    for (size_t step = 0; step < reports[0].step_time_us.size(); ++step) {
      // The bound knows no waves that are not full.
      EXPECT_LE(reports[1].step_time_us[step], reports[0].step_time_us[step]) << platform << ", step " << step;
      EXPECT_GT(reports[1].step_time_us[step], 0.98 * reports[0].step_time_us[step]) << platform << ", step " << step;
    }
  }
}

// Side by side with others, or alone: the same report.
TEST_F(Bounds, TogetherEachReportsWhatItWouldAlone) {
  WriteSteps(Draw({.parts = 24, .least_tokens = 20, .most_tokens = 80, .skew = 10}), 8,
             (folder_ / "small.eptrace").string());
  WriteExperiment("platform.txtpb", 8, "");
  std::vector<std::vector<std::string>> alternatives = kAlternatives;
  alternatives.push_back({"placement.policy=topology_aware"});
  alternatives.push_back({"placement.policy=compute_aware"});
  alternatives.push_back({"placement.policy=eplb", "communication.communication=allgather_reducescatter"});
  alternatives.push_back({"placement.policy=trtllm", "rebalance.mode=online", "replica_choice.choice=round_robin"});
  const std::vector<RunReport> together = RunWithBound(alternatives).value();
  for (size_t i = 0; i < alternatives.size(); ++i) {
    const absl::StatusOr<RunReport> alone = Run(alternatives[i], {.threads = 2});
    ASSERT_TRUE(alone.ok()) << alone.status();
    EXPECT_EQ(together[i].step_time_us, alone->step_time_us) << alternatives[i][0];
    EXPECT_EQ(together[i].summary.dump(), alone->summary.dump()) << alternatives[i][0];
  }
}

}  // namespace
}  // namespace epsim
