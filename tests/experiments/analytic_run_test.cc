// Question: is the answer without a trace labelled, and near that of a drawn trace of uniform routing?
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "experiments/answer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/load/max_expert_load.h"
#include "tests/experiments/small_run.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using Json = nlohmann::ordered_json;

class AnalyticRunTest : public SmallRun {
 protected:
  // The experiment of SmallRun without its trace.
  absl::StatusOr<RunReport> Analytic(std::vector<std::string> set = {}, RunOptions options = {}) {
    set.push_back("trace=");
    return Run(std::move(set), std::move(options));
  }
};

TEST_F(AnalyticRunTest, SaysWhatItIs) {
  const absl::StatusOr<RunReport> report = Analytic();
  ASSERT_TRUE(report.ok()) << report.status();
  const Json& analytic = report->summary["analytic"];
  EXPECT_EQ(analytic["routing"], "uniform, independent");
  EXPECT_EQ(analytic["tokens"], 32);  // Four requests on each of eight ranks.
  EXPECT_EQ(analytic["context_tokens"], 1024);
  EXPECT_EQ(analytic["experts_per_rank"], 2);
  const LoadCase load{.batch = 32, .chips = 8, .experts = 16, .top_k = 4};
  EXPECT_EQ(analytic["max_expert_load"], ExactMaxExpertLoad(load).value());
  EXPECT_EQ(report->summary["trace"]["steps"], 1);
  EXPECT_EQ(report->summary["trace"]["scored_tokens"], 32);
  const std::string text = AnswerText(report->summary);
  EXPECT_THAT(text, HasSubstr("no trace; uniform independent routing of 32 tokens, contexts of 1024 tokens\n"));
  EXPECT_THAT(text, HasSubstr("2 of 2 experts active (exact"));
  EXPECT_THAT(text, HasSubstr("one expected decode step, 4 requests a rank\n"));
  EXPECT_THAT(text, HasSubstr("times come from   roofline"));
  EXPECT_THAT(text, Not(HasSubstr("steps scored")));
}

// The same workload on a trace that was drawn uniformly: the mean of many steps against the one expected step.
TEST_F(AnalyticRunTest, IsNearTheMeanOfDrawnSteps) {
  WriteTrace("small.eptrace", 400, 60, /*skew=*/1);
  for (const char* requests : {"1", "4", "64"}) {
    for (const char* ranks : {"4", "8"}) {
      const std::vector<std::string> set = {std::string("ranks=") + ranks,
                                            std::string("workload.continuous.running_requests_per_rank=") + requests};
      std::vector<std::string> without = set, with = set;
      without.push_back("analytic.context_tokens=130");  // Requests go from 100 to 160.
      const absl::StatusOr<RunReport> expected = Analytic(without), drawn = Run(with);
      ASSERT_TRUE(expected.ok()) << expected.status();
      ASSERT_TRUE(drawn.ok()) << drawn.status();
      const auto ratio = [&](const char* what, const char* of) {
        return expected->summary[what][of].get<double>() / drawn->summary[what][of].get<double>();
      };
      EXPECT_NEAR(ratio("step_time_us", "mean"), 1, 0.02) << requests << " on " << ranks;
      EXPECT_NEAR(ratio("breakdown_us", "routed_experts"), 1, 0.03) << requests << " on " << ranks;
      EXPECT_NEAR(expected->summary["balancedness"]["tokens"]["mean"].get<double>(),
                  drawn->summary["balancedness"]["tokens"]["mean"].get<double>(), 0.1)
          << requests << " on " << ranks;
    }
  }
}

TEST_F(AnalyticRunTest, TakesRanksThatDoNotDivideTheExperts) {
  const absl::StatusOr<RunReport> report = Analytic({"ranks=3"});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->summary["analytic"]["experts_per_rank"], 6);
  EXPECT_EQ(report->summary["slots"], 18);
}

TEST_F(AnalyticRunTest, PlacesInOrderAndSaysSo) {
  const absl::StatusOr<RunReport> report = Analytic({"placement.policy=eplb"});
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->summary["placement"], "contiguous");
  EXPECT_EQ(report->summary["slots"], 16);
  EXPECT_THAT(AnswerText(report->summary), HasSubstr("without a trace there is no load to place experts by"));
}

TEST_F(AnalyticRunTest, LongerContextsTakeLonger) {
  const double near = Analytic()->step_time_us[0];
  EXPECT_GT(Analytic({"analytic.context_tokens=100000"})->step_time_us[0], near);
  EXPECT_GT(Analytic({"workload.continuous.running_requests_per_rank=256"})->step_time_us[0], near);
}

TEST_F(AnalyticRunTest, WritesAReportThatThreadsDoNotChange) {
  const std::string one = (folder_ / "one").string(), two = (folder_ / "two").string();
  ASSERT_TRUE(Analytic({}, {.out = one, .threads = 1}).ok());
  ASSERT_TRUE(Analytic({}, {.out = two, .threads = 3}).ok());
  for (const char* file : {"/summary.json", "/steps.csv", "/timeline.json", "/manifest.txtpb"}) {
    EXPECT_FALSE(ReadFile(one + file).empty()) << file;
    EXPECT_EQ(ReadFile(one + file), ReadFile(two + file)) << file;
  }
  EXPECT_THAT(ReadFile(one + "/manifest.txtpb"), HasSubstr("context_tokens: 1024"));
}

TEST_F(AnalyticRunTest, SaysWhatIsMissing) {
  const auto error = [&](std::vector<std::string> set) {
    const absl::StatusOr<RunReport> report = Analytic(std::move(set), {.out = (folder_ / "out").string()});
    EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument) << report.status();
    EXPECT_FALSE(std::filesystem::exists(folder_ / "out"));
    EXPECT_THAT(std::string(report.status().message()), HasSubstr("small.experiment: "));
    return std::string(report.status().message());
  };
  EXPECT_THAT(error({"workload.batching=recorded"}), HasSubstr("trace: none named"));
  EXPECT_THAT(error({"model="}), HasSubstr("neither model nor trace is named"));
  EXPECT_THAT(error({"workload.continuous.running_requests_per_rank=9000"}), HasSubstr("do not fit"));
  EXPECT_THAT(error({"analytic.context_tokens=4000000000"}), HasSubstr("is more than 100000000"));
  EXPECT_THAT(std::string(Run({"analytic.context_tokens=5"}).status().message()),
              HasSubstr("analytic: assumed where no trace is named"));
}

}  // namespace
}  // namespace epsim
