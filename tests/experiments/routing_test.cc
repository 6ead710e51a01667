// Whole runs whose tokens are routed anew.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "experiments/answer.h"
#include "experiments/run.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/experiments/small_run.h"
#include "traces/format/trace_writer.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

// The number nearest to `score`, which the format can hold exactly.
std::string Stored(NumberFormat format, float score) {
  uint32_t bits;
  std::memcpy(&bits, &score, sizeof(bits));
  if (format == FLOAT16) {
    // Normal numbers only: sign, exponent less 112, ten bits of fraction.
    const uint32_t exponent = (bits >> 23 & 255) - 112;
    bits = bits >> 31 << 15 | (std::isnan(score) ? 0x7e00u : exponent << 10 | (bits >> 13 & 1023));
    if (score == 0) bits = 0;
  } else if (format == BFLOAT16) {
    bits >>= 16;
  }
  return std::string(reinterpret_cast<const char*>(&bits), format == FLOAT32 ? 4 : 2);
}

class RoutingRun : public SmallRun {
 protected:
  void SetUp() override {
    SmallRun::SetUp();
    WriteScoredTrace("small.eptrace");
  }

  // 64 requests of 40 decode tokens.  A score is the expert's bias, from 3 for expert 0 down to 0, and noise of 0 to 2,
  // in eighths: any format holds it.  The router takes the top 4.
  void WriteScoredTrace(const std::string& name, NumberFormat format = FLOAT32, bool nan = false) {
    TraceHeader header;
    header.set_model("small");
    header.set_layers(kLayers);
    header.set_experts(kExperts);
    header.set_top_k(kTopK);
    header.set_granularity(REQUEST);
    header.set_source("a test");
    header.set_scores(format);
    const auto writer = TraceWriter::Create((folder_ / name).string(), header).value();
    RandomStream random(1, "scores");
    for (int request = 0; request < 64; ++request) {
      std::vector<int32_t> ids;
      std::string stored;
      for (int i = 0; i < 40 * kLayers; ++i) {
        std::vector<float> scores;
        for (int e = 0; e < kExperts; ++e) {
          scores.push_back(static_cast<float>(1 + (24 * (kExperts - 1 - e) / (kExperts - 1)) + random.Below(16)) / 8);
        }
        std::vector<int32_t> order(kExperts);
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
        ids.insert(ids.end(), order.begin(), order.begin() + kTopK);
        if (nan && request == 63 && i == 77) scores[5] = std::numeric_limits<float>::quiet_NaN();
        for (const float score : scores) stored += Stored(format, score);
      }
      RequestInfo info;
      info.set_id(static_cast<uint64_t>(request));
      info.set_prompt_tokens(100);
      const std::vector<uint8_t> phase(40, DECODE);
      TokenColumns columns;
      columns.phase = phase;
      columns.scores = absl::MakeSpan(reinterpret_cast<const std::byte*>(stored.data()), stored.size());
      ASSERT_TRUE(writer->AppendRequest(info, ids, columns).ok());
    }
    ASSERT_TRUE(writer->Finish().ok());
  }

  static double Step(const RunReport& report) { return report.summary["step_time_us"]["mean"].get<double>(); }
  static double Balanced(const RunReport& report) {
    return report.summary["balancedness"]["tokens"]["mean"].get<double>();
  }
  static std::string Message(const absl::StatusOr<RunReport>& report) { return std::string(report.status().message()); }
};

TEST_F(RoutingRun, ExpertChoiceBalancesWhatTheRouterDoesNot) {
  const RunReport captured = Run().value(), routed = Run({"routing.policy=expert_choice"}).value();
  EXPECT_LT(Balanced(captured), 0.6);
  EXPECT_GT(Balanced(routed), Balanced(captured) + 0.1);
}

// Every rank's router takes 300 us more in both layers, and nothing else changes.
TEST_F(RoutingRun, TheKernelIsCharged) {
  const std::vector<std::string> free = {"routing.policy=expert_choice", "routing.kernel.per_entry=0 ps",
                                         "routing.kernel.floor=0 ps"};
  const RunReport without = Run(free).value();
  const RunReport with = Run({free[0], free[1], "routing.kernel.floor=300 us"}).value();
  EXPECT_NEAR(Step(with) - Step(without), 2 * 300, 1e-6);
  const auto& worth = with.summary["routing"];
  EXPECT_NEAR(worth["overhead_us"].get<double>(), 2 * 300, 1e-9);
  EXPECT_EQ(without.summary["routing"]["overhead_us"], 0);
  EXPECT_EQ(worth["balance_gain_us"], without.summary["routing"]["balance_gain_us"]);
  EXPECT_GT(worth["balance_gain_us"], 0);
}

TEST_F(RoutingRun, NetGainIsBalanceGainLessOverheadInEachLayerAndInAll) {
  const RunReport report = Run({"routing.policy=expert_choice", "routing.kernel.kind=FUSED"}).value();
  const auto& worth = report.summary["routing"];
  EXPECT_EQ(worth["policy"], "expert_choice");
  EXPECT_EQ(worth["scores"], "captured");
  EXPECT_EQ(worth["routed_anew"], 1);
  ASSERT_EQ(worth["layers"].size(), 2u);
  double net = 0;
  for (const auto& layer : worth["layers"]) {
    EXPECT_NEAR(layer["net_gain_us"].get<double>(),
                layer["balance_gain_us"].get<double>() - layer["overhead_us"].get<double>(), 1e-9);
    net += layer["net_gain_us"].get<double>();
  }
  EXPECT_NEAR(worth["net_gain_us"].get<double>(), net, 1e-9);
  // 5 us and 4 tokens * 16 experts * 4 ps on a rank.
  EXPECT_NEAR(worth["overhead_us"].get<double>(), 2 * 5.000256, 1e-9);
  EXPECT_FALSE(report.summary["memory_bytes"].contains("routing_matrix_per_gpu")) << "a fused kernel has none";
  EXPECT_EQ(Run({"routing.policy=expert_choice"})->summary["memory_bytes"]["routing_matrix_per_gpu"], 4 * 16 * 4);
  EXPECT_THAT(AnswerText(report.summary), AllOf(HasSubstr("routing           expert_choice in 100 % of layers"),
                                                HasSubstr("of captured pairs kept")));
}

// An expert takes ceil(1.25 * 4 tokens * 4 / 16) = 2 of a rank's four tokens.
TEST_F(RoutingRun, SaysHowFarItDepartsFromTheCapture) {
  const RunReport report = Run({"routing.policy=expert_choice"}).value();
  const auto& worth = report.summary["routing"];
  EXPECT_GT(worth["captured_pairs_kept"], 0.3);
  EXPECT_LT(worth["captured_pairs_kept"], 0.95);
  EXPECT_EQ(worth["tokens_dropped"], 0) << "they fall back";
  EXPECT_THAT(report.summary["notes"].dump(), HasSubstr("changes what the model computes"));
  // With room for every token each keeps its own top-4, the highest of its scores.
  const RunReport all = Run({"routing.policy=expert_choice", "routing.expert_choice.capacity_factor=4"}).value();
  EXPECT_GT(all.summary["routing"]["captured_pairs_kept"], 0.999);
  // Capacity 1 for 16 experts and 4 tokens, of which each keeps 4 at most.
  const RunReport few = Run({"routing.policy=expert_choice", "routing.expert_choice.capacity_factor=0.01",
                             "routing.expert_choice.fallback=FALLBACK_NONE"})
                            .value();
  EXPECT_GT(few.summary["routing"]["tokens_dropped"], 0);
}

TEST_F(RoutingRun, FormatsOfScoresDoNotMatter) {
  const auto worth = [&](NumberFormat format) {
    WriteScoredTrace("small.eptrace", format);
    return Run({"routing.policy=expert_choice"}).value().summary["routing"];
  };
  const auto expected = worth(FLOAT32);
  EXPECT_EQ(worth(FLOAT16), expected);
  EXPECT_EQ(worth(BFLOAT16), expected);
}

TEST_F(RoutingRun, TokenChoiceIsTheDefaultAndCostsNothing) {
  const RunReport report = Run().value();
  EXPECT_FALSE(report.summary.contains("routing"));
  EXPECT_THAT(AnswerText(report.summary), Not(HasSubstr("routing  ")));
  EXPECT_EQ(Run({"routing.policy=token_choice"})->summary, report.summary);
}

TEST_F(RoutingRun, AdaptiveIsTokenChoiceWhileBatchesAreSmall) {
  const RunReport off = Run({"routing.policy=adaptive"}).value();  // 32 tokens a step.
  EXPECT_EQ(off.summary["routing"]["routed_anew"], 0);
  EXPECT_EQ(off.summary["routing"]["captured_pairs_kept"], 1);
  EXPECT_EQ(Step(off), Step(Run().value()));
  const RunReport on =
      Run({"routing.policy=adaptive", "routing.adaptive.off_below_tokens=1", "routing.adaptive.on_above_tokens=31"})
          .value();
  EXPECT_EQ(on.summary["routing"]["routed_anew"], 1) << "the steps planned on have filled the window";
  const RunReport expert_choice = Run({"routing.policy=expert_choice"}).value();
  EXPECT_EQ(Step(on), Step(expert_choice));
}

TEST_F(RoutingRun, TheReportDoesNotDependOnTheNumberOfThreads) {
  const std::vector<std::string> set = {"routing.policy=adaptive", "routing.adaptive.off_below_tokens=1",
                                        "routing.adaptive.on_above_tokens=31", "placement.policy=eplb"};
  const RunReport one = Run(set, {.threads = 1}).value();
  EXPECT_EQ(Run(set, {.threads = 3}).value().summary, one.summary);
}

TEST_F(RoutingRun, ATraceWithIdsOnlyIsRefusedUnlessScoresMayBeMadeUp) {
  WriteTrace("small.eptrace", 64, 40, 30);
  EXPECT_THAT(Message(Run({"routing.policy=expert_choice"})),
              AllOf(HasSubstr("small.eptrace: has expert ids only"), HasSubstr("routing.reconstruct=RANK_PRIOR")));
  const RunReport report = Run({"routing.policy=expert_choice", "routing.reconstruct=RANK_PRIOR"}).value();
  EXPECT_EQ(report.summary["routing"]["scores"], "rank_prior");
  EXPECT_THAT(report.summary["notes"].dump(), HasSubstr("low confidence"));
  EXPECT_GT(Balanced(report), Balanced(Run().value()));
}

TEST_F(RoutingRun, ACountsTraceIsRefused) {
  TraceHeader header;
  header.set_model("small");
  header.set_layers(kLayers);
  header.set_experts(kExperts);
  header.set_top_k(kTopK);
  header.set_granularity(COUNTS);
  const auto writer = TraceWriter::Create((folder_ / "small.eptrace").string(), header).value();
  for (int step = 0; step < 8; ++step) {
    ASSERT_TRUE(writer->AppendCounts(std::vector<uint32_t>(kLayers * kExperts, 8)).ok());
  }
  ASSERT_TRUE(writer->Finish().ok());
  EXPECT_THAT(Message(Run({"workload.batching=recorded", "routing.policy=expert_choice"})),
              AllOf(HasSubstr("small.eptrace: has tokens per expert only"), HasSubstr("token_choice would do")));
}

TEST_F(RoutingRun, ScoresThatAreNoNumbersAreRefusedWithTheirPlace) {
  WriteScoredTrace("small.eptrace", FLOAT16, true);
  EXPECT_THAT(Message(Run({"routing.policy=expert_choice"})),
              AllOf(HasSubstr("small.eptrace: step "), HasSubstr("MoE layer 1, expert 5: the router's score is not")));
  EXPECT_TRUE(Run().ok()) << "who does not ask for scores does not see them";
}

TEST_F(RoutingRun, ValuesOutOfRangeAreNamed) {
  EXPECT_THAT(Message(Run({"routing.expert_choice.capacity_factor=-1"})),
              AllOf(HasSubstr("small.experiment: routing.expert_choice.capacity_factor: -1 is not")));
  EXPECT_THAT(Message(Run({"routing.policy=adaptive", "routing.adaptive.variation_threshold=nan"})),
              HasSubstr("routing.adaptive.variation_threshold: nan"));
}

}  // namespace
}  // namespace epsim
