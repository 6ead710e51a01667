#include "policies/rebalance/expert_profiler.h"

#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using namespace std::chrono_literals;

ProfilerConfig Config(const std::string& text) {
  ProfilerConfig config;
  EXPECT_TRUE(ParseTextProto(text, "a test", &config).ok());
  return CompleteProfilerConfig(config).value();
}

// Which of the first `steps` steps are profiled.
std::vector<int> ProfiledSteps(ExpertProfiler* profiler, int steps) {
  std::vector<int> profiled;
  for (int step = 0; step < steps; ++step) {
    if (profiler->BeginStep()) profiled.push_back(step);
  }
  return profiled;
}

TEST(ExpertProfiler, WarmsUpForTenStepsAndThenProfilesEveryStep) {
  ExpertProfiler profiler(Config(""), 1, 1);
  EXPECT_THAT(ProfiledSteps(&profiler, 13), ElementsAre(10, 11, 12));
}

TEST(ExpertProfiler, ProfilesTheFirstStepAfterWarmUpAndThenAtTheInterval) {
  ExpertProfiler profiler(Config("warm_up_steps: 2 interval_steps: 3"), 1, 1);
  EXPECT_THAT(ProfiledSteps(&profiler, 10), ElementsAre(2, 5, 8));
  ExpertProfiler at_once(Config("warm_up_steps: 0 interval_steps: 4"), 1, 1);
  EXPECT_THAT(ProfiledSteps(&at_once, 9), ElementsAre(0, 4, 8));
}

TEST(ExpertProfiler, OnlyProfiledStepsCarryTheOverhead) {
  ExpertProfiler profiler(Config("warm_up_steps: 1 interval_steps: 2 overhead: \"3 us\""), 1, 1);
  EXPECT_EQ(profiler.layer_overhead(), Duration{});  // Before any step.
  std::vector<Duration> overhead;
  for (int step = 0; step < 4; ++step) {
    profiler.BeginStep();
    overhead.push_back(profiler.layer_overhead());
  }
  EXPECT_THAT(overhead, ElementsAre(0us, 3us, 0us, 3us));
  ExpertProfiler by_default(Config("warm_up_steps: 0"), 1, 1);
  by_default.BeginStep();
  EXPECT_EQ(by_default.layer_overhead(), 1us);
}

// 300 tokens in 600 ps and 100 in 600: 1,200 / 400, not the mean of 2 and 6.
TEST(ExpertProfiler, AveragesAreOverAllThatWasRecorded) {
  ExpertProfiler profiler(Config("warm_up_steps: 0"), 2, 2);
  profiler.BeginStep();
  profiler.Record(Layer{1}, LogicalExpert{0}, {.tokens = 300, .invocations = 1, .picoseconds = 600});
  profiler.BeginStep();
  profiler.Record(Layer{1}, LogicalExpert{0}, {.tokens = 100, .invocations = 2, .picoseconds = 600});
  EXPECT_EQ(profiler.TimePerToken(Layer{1}, LogicalExpert{0}), 3);
  EXPECT_EQ(profiler.TimePerInvocation(Layer{1}, LogicalExpert{0}), 400);
  const ExpertSample& recorded = profiler.Recorded(Layer{1}, LogicalExpert{0});
  EXPECT_EQ(recorded.tokens, 400);
  EXPECT_EQ(recorded.invocations, 3);
  EXPECT_EQ(recorded.picoseconds, 1200);
}

// Experts at 2 and 8 ps a token, whatever their tokens: 5 for the third.  Layers do not mix.
TEST(ExpertProfiler, UnsampledExpertsTakeTheMeanOfTheirLayer) {
  ExpertProfiler profiler(Config("warm_up_steps: 0"), 3, 3);
  EXPECT_EQ(profiler.Profile(), nullptr);
  profiler.BeginStep();
  EXPECT_EQ(profiler.Profile(), nullptr);
  profiler.Record(Layer{0}, LogicalExpert{0}, {.tokens = 1000, .invocations = 4, .picoseconds = 2000});
  profiler.Record(Layer{0}, LogicalExpert{2}, {.tokens = 10, .invocations = 1, .picoseconds = 80});
  profiler.Record(Layer{2}, LogicalExpert{1}, {.tokens = 5, .invocations = 5, .picoseconds = 35});
  const ExpertProfile* const profile = profiler.Profile();
  ASSERT_NE(profile, nullptr);
  EXPECT_EQ(profile->layers, 3);
  EXPECT_EQ(profile->experts, 3);
  EXPECT_THAT(profile->time_per_token, ElementsAre(2, 5, 8, 0, 0, 0, 7, 7, 7));
  EXPECT_EQ(profiler.TimePerToken(Layer{0}, LogicalExpert{1}), 5);
  EXPECT_EQ(profiler.TimePerInvocation(Layer{0}, LogicalExpert{1}), (500 + 80) / 2);
  EXPECT_EQ(profiler.TimePerInvocation(Layer{1}, LogicalExpert{1}), 0);
}

TEST(ExpertProfiler, EachReplicaWithTokensIsAnInvocation) {
  ExpertProfiler profiler(Config("warm_up_steps: 0"), 1, 3);
  profiler.BeginStep();
  const std::vector<LogicalExpert> experts = {LogicalExpert{2}, LogicalExpert{0}, LogicalExpert{2}, kNoExpert,
                                              LogicalExpert{1}};
  profiler.RecordSlots(Layer{0}, experts, {4, 1, 6, 0, 0}, {40, 30, 80, 0, 0});
  EXPECT_EQ(profiler.Recorded(Layer{0}, LogicalExpert{2}).tokens, 10);
  EXPECT_EQ(profiler.Recorded(Layer{0}, LogicalExpert{2}).invocations, 2);
  EXPECT_EQ(profiler.TimePerToken(Layer{0}, LogicalExpert{2}), 12);
  EXPECT_EQ(profiler.Recorded(Layer{0}, LogicalExpert{1}).invocations, 0);
  EXPECT_EQ(profiler.TimePerToken(Layer{0}, LogicalExpert{1}), (12 + 30) / 2.0);
}

TEST(ExpertProfiler, ResetIsANewBeginning) {
  ExpertProfiler profiler(Config("warm_up_steps: 1"), 1, 2);
  EXPECT_THAT(ProfiledSteps(&profiler, 2), ElementsAre(1));
  profiler.Record(Layer{0}, LogicalExpert{0}, {.tokens = 1, .invocations = 1, .picoseconds = 9});
  ASSERT_NE(profiler.Profile(), nullptr);
  profiler.Reset();
  EXPECT_EQ(profiler.Profile(), nullptr);
  EXPECT_EQ(profiler.layer_overhead(), Duration{});
  EXPECT_EQ(profiler.Recorded(Layer{0}, LogicalExpert{0}).tokens, 0);
  EXPECT_THAT(ProfiledSteps(&profiler, 3), ElementsAre(1, 2));
  profiler.Record(Layer{0}, LogicalExpert{0}, {.tokens = 2, .invocations = 1, .picoseconds = 8});
  EXPECT_THAT(profiler.Profile()->time_per_token, ElementsAre(4, 4));
}

TEST(ExpertProfiler, PrintsALineAnExpert) {
  ExpertProfiler profiler(Config("warm_up_steps: 0"), 2, 2);
  profiler.BeginStep();
  profiler.Record(Layer{0}, LogicalExpert{1}, {.tokens = 64, .invocations = 2, .picoseconds = 48e6});
  EXPECT_EQ(profiler.Table(),
            "layer expert       tokens invocations        time_us     us/token  us/invocation\n"
            "    0      0            0           0          0.000      ~0.7500        ~24.000\n"
            "    0      1           64           2         48.000       0.7500         24.000\n"
            "    1      0            0           0          0.000      ~0.0000         ~0.000\n"
            "    1      1            0           0          0.000      ~0.0000         ~0.000\n");
}

TEST(CompleteProfilerConfig, FillsInDefaultsAndRefusesWhatIsNoTime) {
  const ProfilerConfig config = Config("");
  EXPECT_EQ(config.warm_up_steps(), 10u);
  EXPECT_EQ(config.interval_steps(), 1u);
  EXPECT_EQ(config.overhead(), "1 us");
  EXPECT_EQ(Config("warm_up_steps: 0").warm_up_steps(), 0u);
  ProfilerConfig bad;
  bad.set_overhead("2");
  EXPECT_THAT(CompleteProfilerConfig(bad).status().message(), HasSubstr("profiler.overhead: \"2\" has no unit"));
  bad.set_overhead("2 s");
  EXPECT_EQ(CompleteProfilerConfig(bad).status().message(), "profiler.overhead: \"2 s\" is not from 0 to 1 s");
  bad.set_overhead("-1 us");
  EXPECT_FALSE(CompleteProfilerConfig(bad).ok());
}

TEST(ExpertProfilerDeathTest, RecordsProfiledStepsOnly) {
  ExpertProfiler profiler(Config("warm_up_steps: 1"), 1, 1);
  profiler.BeginStep();
  EXPECT_DEATH(profiler.Record(Layer{0}, LogicalExpert{0}, {.tokens = 1, .invocations = 1, .picoseconds = 1}),
               "profiling_");
  profiler.BeginStep();
  EXPECT_DEATH(profiler.Record(Layer{0}, LogicalExpert{1}, {.tokens = 1, .invocations = 1, .picoseconds = 1}),
               "Index\\(expert\\)");
  EXPECT_DEATH(profiler.Record(Layer{0}, LogicalExpert{0}, {.tokens = 0, .invocations = 1, .picoseconds = 1}),
               "sample.tokens > 0");
}

}  // namespace
}  // namespace epsim
