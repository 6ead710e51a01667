// When the stages of overlapping and chunked schedules run, worked by hand.
#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;

class TwoBatchTest : public ForwardPassTest {
 protected:
  TwoBatchTest() {
    SetTokens({4, 4});  // Halves of two: attention 20 us each.
    experts_ = {30us, 30us};
    delay_ = {20us, 20us};
  }
};

// Exchanges of 20 us hide behind computing of 21 and 30 us: both halves compute without a break from 0 to 102
// (2 * 20 attention, 2 * 1 router, 2 * 30 experts); only the last combine is exposed.
TEST_F(TwoBatchTest, PrefillHidesShortExchanges) {
  SetSchedule("external { two_batch_overlap { order: PREFILL } }");
  EXPECT_THAT(Run(), ElementsAre("attention/0 A: 0-20 0-20", "router/0 A: 20-21 20-21", "dispatch/0 A: 21-41 21-41",
                                 "attention/0 B: 21-41 21-41", "router/0 B: 41-42 41-42", "dispatch/0 B: 42-62 42-62",
                                 "routed_experts/0 A: 42-72 42-72", "combine/0 A: 72-92 72-92",
                                 "routed_experts/0 B: 72-102 72-102", "combine/0 B: 102-122 102-122",
                                 "lm_head/1: 122-124 122-124"));
  EXPECT_EQ(end_, SimTime(124us));
}

// At 50 us the exchanges set the pace: the four follow each other without a break from 21 to 221.
TEST_F(TwoBatchTest, PrefillIsPacedByLongExchanges) {
  SetSchedule("external { two_batch_overlap { order: PREFILL } }");
  delay_ = {50us, 50us};
  EXPECT_THAT(Run(), ElementsAre("attention/0 A: 0-20 0-20", "router/0 A: 20-21 20-21", "dispatch/0 A: 21-71 21-71",
                                 "attention/0 B: 21-41 21-41", "router/0 B: 41-42 41-42", "dispatch/0 B: 71-121 71-121",
                                 "routed_experts/0 A: 71-101 71-101", "combine/0 A: 121-171 121-171",
                                 "routed_experts/0 B: 121-151 121-151", "combine/0 B: 171-221 171-221",
                                 "lm_head/1: 221-223 221-223"));
}

// Without overlap the same takes 40 + 1 + 20 + 30 + 20 + 2 = 113: with one layer, halving the batch does not pay, as
// routed experts cost each half what they cost the whole.
TEST_F(TwoBatchTest, HalvesPayTheExpertsTwice) {
  Run();
  EXPECT_EQ(end_, SimTime(113us));
}

// Two layers with shared experts of 4 us.  While B's results are on their way (102-122), A does its shared experts and
// attends in the next layer; B goes on when they have come, at 127.
TEST_F(TwoBatchTest, PrefillGoesOnWithTheNextLayer) {
  SetSchedule("external { two_batch_overlap { order: PREFILL } }");
  model_.set_layers(2);
  model_.set_moe_layers(2);
  model_.set_shared_intermediate(1);
  costs_.shared = 4us;
  const std::vector<std::string> diary = Run();
  EXPECT_THAT(diary, Contains("combine/0 B: 102-122 102-122"));
  EXPECT_THAT(diary, Contains("shared_experts/0 A: 102-106 102-106"));
  EXPECT_THAT(diary, Contains("attention/1 A: 106-126 106-126"));
  EXPECT_THAT(diary, Contains("dispatch/1 A: 127-147 127-147"));
  EXPECT_THAT(diary, Contains("shared_experts/0 B: 127-131 127-131"));
  EXPECT_THAT(diary, Contains("attention/1 B: 131-151 131-151"));
}

// Attention of 20 us in two steps of 10.  A: steps 0-10 and 10-20, router -21, dispatch 21-41.  B's first step 21-31;
// A's experts wait for their tokens until 41.  B's second step and router 71-82 lie beside A's combine 71-91; B's
// dispatch queues behind that until 111, its experts end at 141, its combine at 161.
TEST_F(TwoBatchTest, DecodeTakesTurnsInSteps) {
  SetSchedule("external { two_batch_overlap { order: DECODE } }");
  EXPECT_THAT(Run(),
              ElementsAre("attention/0 A: 0-10 0-10", "attention/0 A: 10-20 10-20", "router/0 A: 20-21 20-21",
                          "dispatch/0 A: 21-41 21-41", "attention/0 B: 21-31 21-31", "routed_experts/0 A: 41-71 41-71",
                          "combine/0 A: 71-91 71-91", "attention/0 B: 71-81 71-81", "router/0 B: 81-82 81-82",
                          "dispatch/0 B: 91-111 91-111", "routed_experts/0 B: 111-141 111-141",
                          "combine/0 B: 141-161 141-161", "lm_head/1: 161-163 161-163"));
}

// A quarter of attention's 20 us comes first.
TEST_F(TwoBatchTest, TheStepsOfAttentionShareItsTime) {
  SetSchedule("external { two_batch_overlap { order: DECODE first_attention_share: 0.25 } }");
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[0], "attention/0 A: 0-5 0-5");
  EXPECT_EQ(diary[1], "attention/0 A: 5-20 5-20");
}

// Communication holds 33 of 132 multiprocessors: on the 3 / 4 left, the 20 us of attention take 26 2/3, the router 1
// 1/3, the experts 40.  The head runs when all is over, on the whole GPU.
TEST_F(TwoBatchTest, ComputesWithoutTheMultiprocessorsOfCommunication) {
  SetSchedule("external { two_batch_overlap { order: PREFILL } }");
  platform_.mutable_gpu()->set_sms(132);
  communication_.made_of.sms = 33;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[0], "attention/0 A: 0-26 0-26");
  EXPECT_EQ(diary[2], "dispatch/0 A: 28-48 28-48");
  EXPECT_EQ(diary[6], "routed_experts/0 A: 56-96 56-96");
  EXPECT_EQ(diary[8], "routed_experts/0 B: 96-136 96-136");
  // 2 * (26.666667 + 1.333334 + 40) + 20 + 2 = 158.000002.
  EXPECT_EQ(end_, SimTime(158us) + Duration(2));
  // Of an unknown number of multiprocessors nothing is taken.
  platform_.mutable_gpu()->set_sms(0);
  Run();
  EXPECT_EQ(end_, SimTime(124us));
}

// A batch without halves computes beside an exchange only where shared experts do.
TEST_F(TwoBatchTest, OnlyWhatRunsBesideAnExchangeIsSlower) {
  SetSchedule("");
  platform_.mutable_gpu()->set_sms(132);
  communication_.made_of.sms = 33;
  model_.set_shared_intermediate(1);
  costs_.shared = 30us;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[0], "attention/0: 0-40 0-40");
  EXPECT_EQ(diary[2], "shared_experts/0: 41-81 41-81");
  EXPECT_EQ(diary[4], "routed_experts/0: 81-111 81-111");
}

// Another stream's transfer holds up rank 1's dispatch of A from 41 to 60, known at 41, when B's dispatch has been
// started for 42 on both ranks.  Rank 1's dispatch of B and its experts of A now start at 60, and the others follow.
TEST_F(TwoBatchTest, ARevisedExchangeMovesBothHalves) {
  SetSchedule("external { two_batch_overlap { order: PREFILL } }");
  const auto meanwhile = [](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(41us), Phase::kArrive, [&network] { network.Delay(0, 1, 19us); });
  };
  EXPECT_THAT(
      Run(meanwhile),
      ElementsAre("attention/0 A: 0-20 0-20", "router/0 A: 20-21 20-21", "dispatch/0 A: 21-41 21-60",
                  "attention/0 B: 21-41 21-41", "router/0 B: 41-42 41-42", "dispatch/0 B: 42-80 60-80",
                  "routed_experts/0 A: 42-72 60-90", "combine/0 A: 80-110 90-110", "routed_experts/0 B: 80-110 90-120",
                  "combine/0 B: 110-140 120-140", "lm_head/1: 140-142 140-142"));
}

class ChunksTest : public ForwardPassTest {
 protected:
  ChunksTest() {
    SetTokens({1, 3});
    experts_ = {30us, 7us};
    delay_ = {20us, 20us};
  }
};

// ceil(2 * 3 / 3) = 2 chunks: rank 0 has 1 and 0 tokens, rank 1 has 2 and 1.  Chunk 1 starts on a rank when it has
// combined chunk 0; rank 0 takes part without tokens.  Attention 10 and 30 us.
TEST_F(ChunksTest, FollowEachOther) {
  SetSchedule("max_tokens: 3");
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-30", "router/0: 10-11 30-31", "dispatch/0: 11-51 31-51",
                                 "routed_experts/0: 51-81 51-58", "combine/0: 81-101 58-101",
                                 "dispatch/0 chunk 1: 101-121 101-121", "routed_experts/0 chunk 1: 121-151 121-128",
                                 "combine/0 chunk 1: 151-171 128-171", "lm_head/1: 171-173 171-173"));
  // Bytes: [0 -> 0, 0 -> 1, 1 -> 0, 1 -> 1] of the tokens in the chunk, times ten on the way back.
  EXPECT_THAT(bytes_, ElementsAre(ElementsAre(1, 1, 2, 2), ElementsAre(10, 10, 20, 20), ElementsAre(0, 0, 1, 1),
                                  ElementsAre(0, 0, 10, 10)));
}

// One ahead: chunk 1 is dispatched at 51, while the experts compute chunk 0.
TEST_F(ChunksTest, Overlap) {
  SetSchedule("max_tokens: 3 external { chunk_overlap: true }");
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-30", "router/0: 10-11 30-31", "dispatch/0: 11-51 31-51",
                                 "dispatch/0 chunk 1: 51-71 51-71", "routed_experts/0: 51-81 51-58",
                                 "combine/0: 81-101 71-101", "routed_experts/0 chunk 1: 81-111 71-78",
                                 "combine/0 chunk 1: 111-131 101-131", "lm_head/1: 131-133 131-133"));
}

// Attention takes 10 us on rank 0 and 30 us on rank 1: what is known of the stage is what is known of rank 1.
TEST_F(ChunksTest, TheLastRankSaysWhereAStagesTimeIsFrom) {
  SetSchedule("max_tokens: 6");
  costs_.executed_tokens = 3;
  Run();
  EXPECT_EQ(diary_.sources[0], CostSource::kReplay);
  costs_.executed_tokens = 1;
  Run();
  EXPECT_EQ(diary_.sources[0], CostSource::kRoofline);
}

// One chunk is what there is without chunks.
TEST_F(ChunksTest, OneChunkIsNoChunking) {
  const std::vector<std::string> whole = Run();
  SetSchedule("max_tokens: 6");
  EXPECT_EQ(Run(), whole);
}

// A fused chunk takes the longer of computing (30 / 7 us) and its exchange.  Released at 11 and 31, both ranks have
// their exchange at 51: rank 0 max(51, 11 + 30), rank 1 max(51, 31 + 7).  Chunk 1 starts on both at 51 and ends at
// max(71, 81) and max(71, 58).  Rank 0 launches it without tokens.  Both ways' bytes travel in one exchange.
TEST_F(ChunksTest, FusedChunksRunInLockStep) {
  SetSchedule("max_tokens: 3 fused {}");
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-30", "router/0: 10-11 30-31", "fused_experts/0: 11-51 31-51",
                                 "fused_experts/0 chunk 1: 51-81 51-71", "lm_head/1: 81-83 71-73"));
  EXPECT_THAT(bytes_, ElementsAre(ElementsAre(11, 11, 22, 22), ElementsAre(0, 0, 11, 11)));
  // The network set chunk 0's last finish, the experts chunk 1's.
  EXPECT_EQ(diary_.sources[2], CostSource::kNetwork);
  EXPECT_EQ(diary_.sources[3], CostSource::kRoofline);
  // With 90 us of computing on rank 0, chunk 0 ends there at 101: rank 1, done at 51, waits.
  experts_ = {90us, 7us};
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[2], "fused_experts/0: 11-101 31-51");
  EXPECT_EQ(diary[3], "fused_experts/0 chunk 1: 101-191 101-121");
}

// Shared experts come before a fused kernel: it takes the whole GPU.
TEST_F(ChunksTest, SharedExpertsDoNotOverlapAFusedKernel) {
  SetSchedule("fused {}");
  model_.set_shared_intermediate(1);
  costs_.shared = 40us;
  EXPECT_EQ(Run()[3], "fused_experts/0: 51-91 71-91");
}

// Attention 10 and 20 us, router 1, exchanges of 20, experts 30 and 7, head 2.  The first pass ends at 93 on both
// ranks; the second run of the layer is the same again from there, and the head once more.
TEST_F(ChunksTest, MtpRunsTheLastLayerAgain) {
  SetTokens({1, 2});
  SetSchedule("mtp_runs: 1");
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21", "dispatch/0: 11-41 21-41",
                                 "routed_experts/0: 41-71 41-48", "combine/0: 71-91 48-91", "lm_head/1: 91-93 91-93",
                                 "attention/0 repeat 1: 93-103 93-113", "router/0 repeat 1: 103-104 113-114",
                                 "dispatch/0 repeat 1: 104-134 114-134", "routed_experts/0 repeat 1: 134-164 134-141",
                                 "combine/0 repeat 1: 164-184 141-184", "lm_head/1 repeat 1: 184-186 184-186"));
}

}  // namespace
}  // namespace epsim
