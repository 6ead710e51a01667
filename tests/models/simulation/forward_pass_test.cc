// The stages of one forward pass, worked by hand.
#include "models/simulation/forward_pass.h"

#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// Attention 10 us a token: ranks have 1 and 2.  Dispatch ends 100 / 104 us after the last release (21), and so on.
TEST_F(ForwardPassTest, StagesFollowEachOtherRankByRank) {
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21", "dispatch/0: 11-121 21-125",
                                 "routed_experts/0: 121-151 125-132", "combine/0: 151-251 132-255",
                                 "lm_head/1: 251-253 255-257"));
  EXPECT_EQ(end_, SimTime(257us));
}

// Shared experts (40 us) run on the compute stream from 11 / 21 while the tokens travel, and do not delay them.
TEST_F(ForwardPassTest, SharedExpertsOverlapDispatch) {
  model_.set_shared_intermediate(1);
  costs_.shared = 40us;
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21", "shared_experts/0: 11-51 21-61",
                                 "dispatch/0: 11-121 21-125", "routed_experts/0: 121-151 125-132",
                                 "combine/0: 151-251 132-255", "lm_head/1: 251-253 255-257"));
}

// Longer than the dispatch, they hold up the routed experts: one compute stream.
TEST_F(ForwardPassTest, RoutedExpertsWaitForTheComputeStream) {
  model_.set_shared_intermediate(1);
  costs_.shared = 200us;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[2], "shared_experts/0: 11-211 21-221");
  EXPECT_EQ(diary[4], "routed_experts/0: 211-241 221-228");
}

TEST_F(ForwardPassTest, WithoutOverlapDispatchWaitsForSharedExperts) {
  model_.set_shared_intermediate(1);
  costs_.shared = 40us;
  SetSchedule("overlap_shared_experts: false");
  EXPECT_EQ(Run()[3], "dispatch/0: 51-161 61-165");
}

TEST_F(ForwardPassTest, DenseLayersComeFirst) {
  model_.set_layers(3);
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "dense_mlp/0: 10-15 20-25", "attention/1: 15-25 25-45",
                                 "dense_mlp/1: 25-30 45-50", "attention/2: 30-40 50-70", "router/2: 40-41 70-71",
                                 "dispatch/2: 41-171 71-175", "routed_experts/2: 171-201 175-182",
                                 "combine/2: 201-301 182-305", "lm_head/3: 301-303 305-307"));
}

// As many dense layers as MoE layers alternate (Llama 4, interleave_moe_layer_step 2).
TEST_F(ForwardPassTest, EqualNumbersAlternate) {
  model_.set_layers(4);
  model_.set_moe_layers(2);
  EXPECT_FALSE(IsMoeLayer(model_, 0));
  EXPECT_TRUE(IsMoeLayer(model_, 1));
  EXPECT_FALSE(IsMoeLayer(model_, 2));
  EXPECT_TRUE(IsMoeLayer(model_, 3));
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary.size(), 2 * 7 + 1u);
  EXPECT_EQ(diary[0].substr(0, 11), "attention/0");
  EXPECT_EQ(diary[1].substr(0, 11), "dense_mlp/0");
}

// Another stream's transfer makes rank 1's dispatch end at 165 instead of 125, known at 123: its experts run 165-172.
// Rank 0's experts (121-151) stay; the combine's last release moves from 151 to 172, its finish to 272 / 276.
TEST_F(ForwardPassTest, ARevisedDispatchMovesWhatFollows) {
  const auto meanwhile = [](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(123us), Phase::kArrive, [&network] { network.Delay(0, 1, 40us); });
  };
  EXPECT_THAT(Run(meanwhile), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21",
                                          "dispatch/0: 11-121 21-165", "routed_experts/0: 121-151 165-172",
                                          "combine/0: 151-272 172-276", "lm_head/1: 272-274 276-278"));
  EXPECT_EQ(end_, SimTime(278us));
}

// The last combine may be revised after the LM head has been planned: the step's end moves with it.
TEST_F(ForwardPassTest, ARevisedCombineMovesTheEndOfTheStep) {
  const auto meanwhile = [](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(252us), Phase::kArrive, [&network] { network.Delay(1, 1, 10us); });
  };
  EXPECT_EQ(Run(meanwhile).back(), "lm_head/1: 251-253 265-267");
  EXPECT_EQ(end_, SimTime(267us));
}

// With 3 us until the first byte, a rank that is ready at t is released at t + 3: the last at 24, the network's
// finishes are 124 / 128.  The kernels take 200 us at least on both, 120 us of copying on rank 1: max(124, 11 + 200, 11
// + 3) and max(128, 21 + 200, 21 + 3 + 120).
TEST_F(ForwardPassTest, KernelsTakeTheirOwnTime) {
  communication_.launch = 3us;
  communication_.busy = {0us, 120us};
  EXPECT_EQ(Run()[2], "dispatch/0: 11-124 21-144");
  communication_.floor = 200us;
  EXPECT_EQ(Run()[2], "dispatch/0: 11-211 21-221");
}

// Half as fast, rank 1 takes twice as long for whatever it computes.
TEST_F(ForwardPassTest, ASlowGpuTakesLonger) {
  ClusterOverrides::Gpu* gpu = overrides_.add_gpu();
  gpu->set_rank(1);
  gpu->set_speed(0.5);
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[0], "attention/0: 0-10 0-40");
  EXPECT_EQ(diary[1], "router/0: 10-11 40-42");
  EXPECT_EQ(diary[2], "dispatch/0: 11-142 42-146");
  EXPECT_EQ(diary[5].substr(0, 10), "lm_head/1:");
}

// 2 us for each of 1 and 2 tokens.
TEST_F(ForwardPassTest, QuantisesBeforeDispatch) {
  costs_.quantize_row = 2us;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[2], "quantize/0: 11-13 21-25");
  EXPECT_EQ(diary[3], "dispatch/0: 13-125 25-129");
}

// The all-reduce takes the communication stream until 121 / 125; the dispatch queues behind it.
TEST_F(ForwardPassTest, StatisticsThatDoNotRideAlongGoFirst) {
  SetSchedule("load_statistics: true");
  communication_.made_of.statistics_ride_along = false;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[2], "statistics/0: 11-121 21-125");
  EXPECT_EQ(diary[3], "dispatch/0: 121-225 125-229");
  communication_.made_of.statistics_ride_along = true;
  EXPECT_EQ(Run()[2], "dispatch/0: 11-121 21-125");
}

// Every rank routes the tokens of both, 3, at 1 us; nothing is dispatched.
TEST_F(ForwardPassTest, WithoutDispatchEveryRankRoutesAllTokens) {
  communication_.made_of.has_dispatch = false;
  costs_.router_row = 1us;
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-14 20-24", "routed_experts/0: 14-44 24-31",
                                 "combine/0: 44-144 31-148", "lm_head/1: 144-146 148-150"));
}

// Padded to the fullest rank, both route 2 tokens.
TEST_F(ForwardPassTest, RowsOfPaddingAreRouted) {
  SetSchedule("external { padding: ALWAYS }");
  costs_.router_row = 1us;
  EXPECT_EQ(Run()[1], "router/0: 10-13 20-23");
}

TEST_F(ForwardPassTest, HooksAreShownWhereTheyAre) {
  diary_.with_hooks = true;
  EXPECT_THAT(
      Run(), ElementsAre("attention/0: 0-10 0-20", "start_wait_gpu: 10 20", "router/0: 10-11 20-21",
                         "done_wait_gpu: 11 21", "update_statistic: 11 21", "route: 11 21", "dispatch/0: 11-121 21-125",
                         "routed_experts/0: 121-151 125-132", "start_set_cpu: 151 132", "combine/0: 151-251 132-255",
                         "done_set_cpu: 251 255", "lm_head/1: 251-253 255-257"));
}

}  // namespace
}  // namespace epsim
