#include "models/costs/slot_times.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/expert_cost_scale.h"
#include "policies/placement/placement_policy.h"
#include "policies/rebalance/expert_profiler.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

std::vector<double> SlotTimes(const CostModel& costs, const std::vector<int32_t>& tokens,
                              const std::vector<double>& scale = {}) {
  std::vector<double> times(tokens.size());
  AddSlotTimes(costs, tokens, scale, absl::MakeSpan(times));
  return times;
}

// A GPU that compute paces: 1 ps an operation, so that 16 rows take 16 * 4 * 256 * 128 ps and half of that.
GpuSpec SlowGpu() {
  GpuSpec slow = RoundGpu();
  slow.set_bf16("1 TFLOP/s");
  slow.set_memory_bandwidth("900000 TB/s");
  return slow;
}

// Where memory paces all, times add up: a slot's weights, 196,608 B, and 2,560 B a token.
TEST(SlotTimesTest, ASlotTakesItsWeightsAndTokens) {
  EXPECT_THAT(SlotTimes(*RoundCosts(), {3, 0, 17}),
              ElementsAre(DoubleNear(196'608 + 3 * 2'560, 1), 0, DoubleNear(196'608 + 17 * 2'560, 1)));
  EXPECT_THAT(SlotTimes(*RoundCosts(), {3, 0, 17}, {2, 9, 0.5}),
              ElementsAre(DoubleNear(2 * (196'608 + 3 * 2'560), 1), 0, DoubleNear((196'608 + 17 * 2'560) / 2, 1)));
}

// Where compute does: 16 and 32 rows at 196,608 ps.
TEST(SlotTimesTest, ASlotTakesItsTiles) {
  const auto costs = RoundCosts(RoundConfig(), RoundModel(), SlowGpu());
  EXPECT_THAT(SlotTimes(*costs, {3, 0, 17}), ElementsAre(DoubleNear(16 * 196'608, 1), 0, DoubleNear(32 * 196'608, 1)));
}

// At 16 TFLOP/s 16 rows of gate and up are 131,072 ps, as long as the weights of a slot take: a slot of 1 token is
// paced by memory, one of 64 by compute.  Alone and together, in gate and up, SwiGLU and down:
TEST(SlotTimesTest, SlotsShareWhatTheRankTookBeyondTheFloors) {
  GpuSpec gpu = RoundGpu();
  gpu.set_bf16("16 TFLOP/s");
  const auto costs = RoundCosts(RoundConfig(), RoundModel(), gpu);
  const double one = Both(131'072 + 1'024, 131'072) + 768 + Both(65'536 + 768, 65'536);
  const double many = Both(131'072 + 64 * 1'024, 4 * 131'072) + 64 * 768 + Both(65'536 + 64 * 768, 4 * 65'536);
  const double all = Both(2 * 131'072 + 65 * 1'024, 5 * 131'072) + 65 * 768 + Both(2 * 65'536 + 65 * 768, 5 * 65'536);
  ASSERT_NEAR(costs->RoutedExperts({1, 64}).time.count(), 7'000'000 + all, 1);
  const std::vector<double> times = SlotTimes(*costs, {1, 64});
  EXPECT_NEAR(times[0], all * one / (one + many), 2);
  EXPECT_NEAR(times[1], all * many / (one + many), 2);
}

TEST(SlotTimesTest, AddUpToTheRankAndToWhatIsThere) {
  const auto costs = RoundCosts();
  RandomStream random(3, "histograms");
  for (int round = 0; round < 50; ++round) {
    std::vector<int32_t> tokens(1 + random.Below(12));
    std::vector<double> scale(tokens.size());
    for (int32_t& t : tokens) t = random.Below(3) == 0 ? 0 : static_cast<int32_t>(random.Below(300));
    for (double& s : scale) s = 0.1 + random.Unit();
    std::vector<double> times(tokens.size(), 1000);
    AddSlotTimes(*costs, tokens, scale, absl::MakeSpan(times));
    EXPECT_NEAR(std::accumulate(times.begin(), times.end(), -1000.0 * static_cast<double>(times.size())),
                static_cast<double>(costs->RoutedExperts(tokens, scale).time.count() - 7'000'000), 1e-3);
    for (size_t slot = 0; slot < tokens.size(); ++slot) EXPECT_EQ(times[slot] > 1000, tokens[slot] > 0);
  }
}

TEST(SlotTimesTest, NoTokensTakeNoTime) {
  EXPECT_THAT(SlotTimes(*RoundCosts(), {0, 0}), ElementsAre(0, 0));
  EXPECT_THAT(SlotTimes(*RoundCosts(), {}), ElementsAre());
}

// Three experts of 96 tokens (six whole tiles), scales 1, 2.5 and 1.2, on a GPU that compute paces: a time per token of
// 1 : 2.5 : 1.2, measured on three ranks of one slot.  Placed on two ranks of two slots by what was measured, the least
// loaded rank works (1 + 1.25) / (1.2 + 1.25) = 91.8 % of the time of the most loaded; by tokens alone, 56.7 %.
TEST(SlotTimesTest, WhatIsMeasuredBalancesTheWorkedExample) {
  const auto costs = RoundCosts(RoundConfig(), RoundModel(), SlowGpu());
  const std::vector<double> scale_of_expert = {1, 2.5, 1.2};
  const ExpertCostScale scale(3, scale_of_expert);
  const auto beyond_floors = [&](const std::vector<int32_t>& tokens, const std::vector<double>& scales) {
    return static_cast<double>(costs->RoutedExperts(tokens, scales).time.count() - 7'000'000);
  };
  EXPECT_NEAR(beyond_floors({96}, {1}) / beyond_floors({96}, {2.5}), 0.4, 1e-6);

  ProfilerConfig config;
  config.set_warm_up_steps(0);
  ExpertProfiler profiler(CompleteProfilerConfig(config).value(), 1, 3);
  profiler.BeginStep();
  const std::vector<LogicalExpert> experts = {LogicalExpert{0}, LogicalExpert{1}, LogicalExpert{2}};
  const std::vector<int32_t> tokens = {96, 96, 96};
  std::vector<double> times(3);
  for (size_t rank = 0; rank < 3; ++rank) {
    AddSlotTimes(*costs, absl::MakeConstSpan(tokens).subspan(rank, 1),
                 absl::MakeConstSpan(scale_of_expert).subspan(rank, 1), absl::MakeSpan(times).subspan(rank, 1));
  }
  profiler.RecordSlots(Layer{0}, experts, tokens, times);

  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};
  const auto utilisation = [&](const char* policy) {
    PlacementPolicyConfig placement_config;
    EXPECT_TRUE(SetField(std::string("policy=") + policy, &placement_config).ok());
    RandomStream random(1, "placement");
    const std::vector<double> load(tokens.begin(), tokens.end());
    PlacementRequest request;
    request.window = {.rows = 1, .layers = 1, .experts = 3, .tokens = load};
    request.profile = profiler.Profile();
    request.random = &random;
    const Placement placement = NewPlacementPolicy(placement_config, shape).value()->Place(request).value();
    std::vector<double> time_of_rank;
    for (int rank = 0; rank < 2; ++rank) {
      const absl::Span<const LogicalExpert> held = placement.experts_of_slots(Layer{0}).subspan(rank * 2, 2);
      std::vector<int32_t> tokens_of_slot;
      for (LogicalExpert expert : held) {
        tokens_of_slot.push_back(96 / static_cast<int32_t>(placement.replicas(Layer{0}, expert).size()));
      }
      std::vector<double> scale_of_slot(2);
      scale.Gather(Layer{0}, held, absl::MakeSpan(scale_of_slot));
      time_of_rank.push_back(beyond_floors(tokens_of_slot, scale_of_slot));
    }
    return std::min(time_of_rank[0], time_of_rank[1]) / std::max(time_of_rank[0], time_of_rank[1]);
  };
  EXPECT_NEAR(utilisation("compute_aware"), 2.25 / 2.45, 1e-6);
  EXPECT_NEAR(utilisation("eplb"), 1.7 / 3.0, 1e-6);
}

}  // namespace
}  // namespace epsim
