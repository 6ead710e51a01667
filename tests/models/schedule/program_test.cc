// The programs of the schedules, as text: what is launched in which order, and what each operation waits for.  In the
// text, an operation is its place, kind and layer; A and B are the halves of a batch; "beside" runs without the
// multiprocessors of communication; hooks are indented.
#include "models/schedule/program.h"

#include <map>
#include <set>
#include <string>
#include <tuple>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/schedule/schedule_config.h"

namespace epsim {
namespace {

ScheduleConfig Config(const std::string& text) {
  ScheduleConfig config;
  EXPECT_TRUE(ParseTextProto(text, "a test", &config).ok());
  return CompleteScheduleConfig(config).value();
}

ModelSpec Model(int layers, int moe_layers, bool shared = true) {
  ModelSpec model;
  model.set_name("small");
  model.set_layers(layers);
  model.set_moe_layers(moe_layers);
  model.set_shared_intermediate(shared ? 1 : 0);
  model.set_mtp_layers(1);
  return model;
}

constexpr BatchShape kOnePiece{}, kTwoChunks{.chunks = 2}, kThreeChunks{.chunks = 3},
    kPrefillHalves{.halves = BatchShape::Halves::kPrefillOrder},
    kDecodeHalves{.halves = BatchShape::Halves::kDecodeOrder};

std::string Text(const std::string& config, const ModelSpec& model, const BatchShape& shape = kOnePiece,
                 const ProgramFacts& facts = {}) {
  return "\n" + ProgramText(MakeProgram(Config(config), model, facts, shape));
}

// A dense layer, then a MoE layer whose shared experts run while the tokens travel.
TEST(ExternalProgram, RunsOneLayerAfterTheOther) {
  EXPECT_EQ(Text("", Model(2, 1)), R"(
0 attention/0
1 dense_mlp/0 after 0
2 attention/1 after 1
  start_wait_gpu
3 router/1 after 2
  done_wait_gpu
  update_statistic
  route
4 shared_experts/1 beside after 3
5 dispatch/1 after 3
6 routed_experts/1 after 4 5
  start_set_cpu
7 combine/1 after 6
  done_set_cpu
8 lm_head/2 after 7
)");
}

TEST(ExternalProgram, WithoutOverlapDispatchWaitsForSharedExperts) {
  EXPECT_EQ(Text("overlap_shared_experts: false", Model(1, 1)), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 shared_experts/0 after 1
3 dispatch/0 after 2
4 routed_experts/0 after 3
  start_set_cpu
5 combine/0 after 4
  done_set_cpu
6 lm_head/1 after 5
)");
}

// Quantised before dispatch, or after it where bf16 travels.  The all-reduce of statistics follows the router.
TEST(ExternalProgram, QuantisesBeforeDispatchAndGathersStatistics) {
  EXPECT_EQ(Text("load_statistics: true", Model(1, 1), kOnePiece,
                 {.statistics = true, .quantization = Quantization::kBeforeDispatch}),
            R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
2 statistics/0 after 1
  update_statistic
  route
3 quantize/0 after 1
4 shared_experts/0 beside after 3
5 dispatch/0 after 2 3
6 routed_experts/0 after 4 5
  start_set_cpu
7 combine/0 after 6
  done_set_cpu
8 lm_head/1 after 7
)");
}

TEST(ExternalProgram, QuantisesWhatWasReceivedWhereBf16Travels) {
  EXPECT_EQ(Text("", Model(1, 1, false), kOnePiece, {.quantization = Quantization::kAfterDispatch}), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 dispatch/0 after 1
3 quantize/0 after 2
4 routed_experts/0 after 3
  start_set_cpu
5 combine/0 after 4
  done_set_cpu
6 lm_head/1 after 5
)");
}

// Every rank has all tokens: nothing is dispatched.
TEST(ExternalProgram, HasNoDispatchForAnAllReduce) {
  EXPECT_EQ(Text("", Model(1, 1), kOnePiece, {.has_dispatch = false}), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 shared_experts/0 after 1
3 routed_experts/0 after 2
  start_set_cpu
4 combine/0 after 3
  done_set_cpu
5 lm_head/1 after 4
)");
}

// A chunk is dispatched when the one before has been combined.
TEST(ExternalProgram, ChunksFollowEachOther) {
  EXPECT_EQ(Text("max_tokens: 8", Model(1, 1), kTwoChunks), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 shared_experts/0 beside after 1
3 dispatch/0 after 1
4 routed_experts/0 after 2 3
5 combine/0 after 4
6 dispatch/0 chunk 1 after 5
7 routed_experts/0 chunk 1 after 6
  start_set_cpu
8 combine/0 chunk 1 after 7
  done_set_cpu
9 lm_head/1 after 8
)");
}

// Chunk 1 is dispatched before the experts compute chunk 0, chunk 2 before they compute chunk 1.
TEST(ExternalProgram, OverlappingChunksAreDispatchedOneAhead) {
  EXPECT_EQ(Text("max_tokens: 8 external { chunk_overlap: true }", Model(1, 1, false), kThreeChunks), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 dispatch/0 after 1
3 dispatch/0 chunk 1 after 2
4 routed_experts/0 beside after 2
5 combine/0 after 3 4
6 dispatch/0 chunk 2 after 5
7 routed_experts/0 chunk 1 beside after 3 4
8 combine/0 chunk 1 after 6 7
9 routed_experts/0 chunk 2 beside after 6 7
  start_set_cpu
10 combine/0 chunk 2 after 8 9
  done_set_cpu
11 lm_head/1 after 10
)");
}

// The chunks of a fused kernel hold both streams, and start together on all ranks.
TEST(FusedProgram, RunsChunksInLockStep) {
  EXPECT_EQ(Text("max_tokens: 8 fused {}", Model(1, 1), kTwoChunks), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 shared_experts/0 after 1
3 fused_experts/0 after 2
4 fused_experts/0 chunk 1 in lock step after 3
  start_set_cpu
  done_set_cpu
5 lm_head/1 after 4
)");
}

// While A is dispatched B attends, while B is dispatched A's experts compute, while A is combined B's experts compute,
// while B is combined A goes on to its shared experts and the next layer.
TEST(TwoBatchProgram, PrefillTakesTurnsInThreeStages) {
  EXPECT_EQ(Text("external { two_batch_overlap {} }", Model(3, 2), kPrefillHalves), R"(
0 attention/0
1 dense_mlp/0 after 0
2 attention/1 A beside after 1
  start_wait_gpu
3 router/1 A beside after 2
  done_wait_gpu
  update_statistic
  route
4 dispatch/1 A after 3
5 attention/1 B beside after 3
6 router/1 B beside after 5
  update_statistic
  route
7 dispatch/1 B after 4 6
8 routed_experts/1 A beside after 4 6
9 combine/1 A after 7 8
10 routed_experts/1 B beside after 7 8
  start_set_cpu
11 combine/1 B after 9 10
  done_set_cpu
12 shared_experts/1 A beside after 10
13 attention/2 A beside after 9 12
  start_wait_gpu
14 router/2 A beside after 13
  done_wait_gpu
  update_statistic
  route
15 dispatch/2 A after 11 14
16 shared_experts/1 B beside after 14
17 attention/2 B beside after 11 16
18 router/2 B beside after 17
  update_statistic
  route
19 dispatch/2 B after 15 18
20 routed_experts/2 A beside after 15 18
21 combine/2 A after 19 20
22 routed_experts/2 B beside after 19 20
  start_set_cpu
23 combine/2 B after 21 22
  done_set_cpu
24 shared_experts/2 A beside after 22
25 shared_experts/2 B beside after 24
26 lm_head/3 after 23 25
)");
}

// B is two stages behind A: A's dispatch lies beside its shared experts and the first step of B's attention, its
// combine beside the second step.
TEST(TwoBatchProgram, DecodeTakesTurnsInFiveStages) {
  EXPECT_EQ(Text("external { two_batch_overlap {} }", Model(2, 2), kDecodeHalves), R"(
0 attention/0 A first step beside
1 attention/0 A second step beside after 0
  start_wait_gpu
2 router/0 A beside after 1
  done_wait_gpu
  update_statistic
  route
3 dispatch/0 A after 2
4 shared_experts/0 A beside after 2
5 attention/0 B first step beside after 4
6 routed_experts/0 A beside after 3 5
7 combine/0 A after 6
8 attention/0 B second step beside after 6
9 router/0 B beside after 8
  update_statistic
  route
10 dispatch/0 B after 7 9
11 shared_experts/0 B beside after 9
12 attention/1 A first step beside after 7 11
13 routed_experts/0 B beside after 10 12
  start_set_cpu
14 combine/0 B after 13
  done_set_cpu
15 attention/1 A second step beside after 13
  start_wait_gpu
16 router/1 A beside after 15
  done_wait_gpu
  update_statistic
  route
17 dispatch/1 A after 14 16
18 shared_experts/1 A beside after 16
19 attention/1 B first step beside after 14 18
20 routed_experts/1 A beside after 17 19
21 combine/1 A after 20
22 attention/1 B second step beside after 20
23 router/1 B beside after 22
  update_statistic
  route
24 dispatch/1 B after 21 23
25 shared_experts/1 B beside after 23
26 routed_experts/1 B beside after 24 25
  start_set_cpu
27 combine/1 B after 26
  done_set_cpu
28 lm_head/2 after 27
)");
}

// The last MoE layer runs again, after the head, and the head after it.  Its hooks wait for the last run.
TEST(MtpProgram, RunsTheLastLayerAgain) {
  EXPECT_EQ(Text("mtp_runs: 1", Model(1, 1, false)), R"(
0 attention/0
  start_wait_gpu
1 router/0 after 0
  done_wait_gpu
  update_statistic
  route
2 dispatch/0 after 1
3 routed_experts/0 after 2
4 combine/0 after 3
5 lm_head/1 after 4
6 attention/0 repeat 1 after 5
7 router/0 repeat 1 after 6
  update_statistic
  route
8 dispatch/0 repeat 1 after 7
9 routed_experts/0 repeat 1 after 8
  start_set_cpu
10 combine/0 repeat 1 after 9
  done_set_cpu
11 lm_head/1 repeat 1 after 10
)");
}

}  // namespace
}  // namespace epsim
