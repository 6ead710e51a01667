#include "policies/placement/compute_aware_placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

PlacementPolicyConfig ComputeAware(double alpha, bool hierarchical = false) {
  PlacementPolicyConfig config;
  (hierarchical ? config.mutable_compute_aware_hierarchical() : config.mutable_compute_aware())->set_alpha(alpha);
  return config;
}

// `time_per_token` empty: no profile.
absl::StatusOr<Placement> Place(const PlacementPolicyConfig& config, const PlacementShape& shape,
                                const std::vector<double>& tokens, const std::vector<double>& time_per_token) {
  RandomStream random(1, "compute_aware_placement_test");
  const ExpertProfile profile{.layers = shape.layers, .experts = shape.experts, .time_per_token = time_per_token};
  PlacementRequest request;
  request.window = {.rows = static_cast<int>(tokens.size() / (shape.layers * shape.experts)),
                    .layers = shape.layers,
                    .experts = shape.experts,
                    .tokens = tokens};
  if (!time_per_token.empty()) request.profile = &profile;
  request.random = &random;
  return NewPlacementPolicy(config, shape).value()->Place(request);
}

std::vector<int> Phy2Log(const Placement& placement, int layer = 0) {
  std::vector<int> experts;
  for (LogicalExpert expert : placement.experts_of_slots(Layer(layer))) experts.push_back(static_cast<int>(expert));
  return experts;
}

// Least over most compute time of a rank, where the replicas of an expert share its tokens evenly.
double Utilisation(const Placement& placement, absl::Span<const double> time_of_expert, int layer = 0) {
  std::vector<double> time(placement.shape().ranks);
  for (int expert = 0; expert < placement.shape().experts; ++expert) {
    const absl::Span<const Slot> slots = placement.replicas(Layer(layer), LogicalExpert(expert));
    for (Slot slot : slots) {
      time[Index(placement.shape().rank_of(slot))] += time_of_expert[expert] / static_cast<double>(slots.size());
    }
  }
  return *std::min_element(time.begin(), time.end()) / *std::max_element(time.begin(), time.end());
}

// Three experts of 100 tokens each, at 1.0, 2.5 and 1.2 ms a token: 100, 250 and 120 ms.
class WorkedExample : public testing::Test {
 protected:
  const std::vector<double> tokens_ = {100, 100, 100};
  const std::vector<double> time_per_token_ = {1.0e9, 2.5e9, 1.2e9};
  const std::vector<double> time_ = {100, 250, 120};
  const PlacementShape three_ranks_{.layers = 1, .experts = 3, .slots = 3, .ranks = 3};
  const PlacementShape two_ranks_{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};
};

// Nothing to choose: 100 / 250.
TEST_F(WorkedExample, OneSlotARankLeavesFortyPercent) {
  const Placement placement = *Place(ComputeAware(0.5), three_ranks_, tokens_, time_per_token_);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(0, 1, 2));
  EXPECT_DOUBLE_EQ(Utilisation(placement, time_), 0.4);
}

// Shares of the tokens 1/3 each, of the time 100, 250, 120 of 470; times 300 tokens and blended: 81.9, 129.8, 88.3.
// Expert 1 gets the replica: 64.9 each.  2 -> rank 0, 0 -> rank 1, 1 -> rank 1 (81.9 < 88.3), 1' -> rank 0.
// Rank 0 computes 120 + 125 ms, rank 1 100 + 125.
TEST_F(WorkedExample, TwoSlotsARankAreBalancedByTime) {
  const Placement placement = *Place(ComputeAware(0.5), two_ranks_, tokens_, time_per_token_);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(2, 1, 0, 1));
  EXPECT_DOUBLE_EQ(Utilisation(placement, time_), 225.0 / 245);  // 91.8 %, above the 88 % of the example.
  PlacementPolicyConfig by_default;
  by_default.mutable_compute_aware();
  EXPECT_EQ(*Place(by_default, two_ranks_, tokens_, time_per_token_), placement);
}

// By tokens the replica goes to expert 0, as the first of equals: 250 + 50 ms on one rank, 120 + 50 on the other.
TEST_F(WorkedExample, TokensAloneSeeNothing) {
  const Placement placement = *Place(ComputeAware(0), two_ranks_, tokens_, time_per_token_);
  EXPECT_THAT(Phy2Log(placement), ElementsAre(1, 0, 2, 0));
  EXPECT_DOUBLE_EQ(Utilisation(placement, time_), 170.0 / 300);
}

// 12 tokens, expert by expert 6, 4, 2, at 1, 1 and 7 ps: times 6, 4, 14 of 24, so the weights are
// 6 -> 3, 4 -> 2, 2 -> 7 as alpha goes from 0 to 1.  The replica is expert 2's as soon as
// 2 + 5 * alpha > 6 - 3 * alpha: alpha > 1/2.
TEST(ComputeAwarePlacement, AlphaGoesFromTokensToTime) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 4};
  for (const auto& [alpha, expert] : {std::pair(0.0, 0), {0.49, 0}, {0.51, 2}, {1.0, 2}}) {
    EXPECT_THAT(Phy2Log(*Place(ComputeAware(alpha), shape, {6, 4, 2}, {1, 1, 7})), ElementsAre(0, 1, 2, expert))
        << alpha;
  }
}

// Drawn windows and profiles.
struct Drawn {
  std::vector<double> tokens, time_per_token;
};
Drawn Draw(const PlacementShape& shape, int rows, uint64_t seed) {
  RandomStream random(seed, "drawn");
  Drawn drawn;
  for (int i = 0; i < rows * shape.layers * shape.experts; ++i) {
    // Sums above 2^24, and fractions, so that rounding to float32 shows.
    drawn.tokens.push_back(static_cast<double>(random.Below(1 << 26) >> random.Below(26)) + random.Unit());
  }
  for (int i = 0; i < shape.layers * shape.experts; ++i) drawn.time_per_token.push_back(1e6 * (0.1 + random.Unit()));
  return drawn;
}

const PlacementShape kShapes[] = {
    {.layers = 2, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 4},
    {.layers = 3, .experts = 64, .slots = 72, .ranks = 8, .nodes = 2, .expert_groups = 8},
    {.layers = 2, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4},
};

PlacementPolicyConfig EplbOf(EplbPlacement::Mode mode) {
  PlacementPolicyConfig config;
  config.mutable_eplb()->set_mode(mode);
  return config;
}

TEST(ComputeAwarePlacement, AtAlphaZeroIsEplb) {
  for (const PlacementShape& shape : kShapes) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      const Drawn drawn = Draw(shape, 3, seed);
      EXPECT_EQ(*Place(ComputeAware(0), shape, drawn.tokens, drawn.time_per_token),
                *Place(EplbOf(EplbPlacement::GLOBAL), shape, drawn.tokens, {}));
      EXPECT_EQ(*Place(ComputeAware(0, true), shape, drawn.tokens, drawn.time_per_token),
                *Place(EplbOf(EplbPlacement::AUTO), shape, drawn.tokens, {}));
    }
  }
}

TEST(ComputeAwarePlacement, WithoutAProfileIsEplb) {
  for (const PlacementShape& shape : kShapes) {
    const Drawn drawn = Draw(shape, 3, 1);
    EXPECT_EQ(*Place(ComputeAware(1), shape, drawn.tokens, {}),
              *Place(EplbOf(EplbPlacement::GLOBAL), shape, drawn.tokens, {}));
    EXPECT_NE(*Place(ComputeAware(1), shape, drawn.tokens, drawn.time_per_token),
              *Place(EplbOf(EplbPlacement::GLOBAL), shape, drawn.tokens, {}));
  }
}

// At alpha 1 only the products count: whole numbers that are exact in float32 place as their product does.
TEST(ComputeAwarePlacement, AtAlphaOneIsEplbOfTheTime) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 8, .ranks = 4, .nodes = 2, .expert_groups = 2};
  // Times 40, 8, 12, 4 of 64 and 64 tokens: the weights are the times.
  const std::vector<double> tokens = {10, 8, 6, 40}, time_per_token = {4, 1, 2, 0.1};
  EXPECT_EQ(*Place(ComputeAware(1), shape, tokens, time_per_token), Eplb({40, 8, 12, 4}, shape, EplbPlacement::GLOBAL));
  EXPECT_EQ(*Place(ComputeAware(1, true), shape, tokens, time_per_token),
            Eplb({40, 8, 12, 4}, shape, EplbPlacement::HIERARCHICAL));
}

// Loads spread 8-fold on experts whose costs per token are spread 16-fold, 9 slots a rank.  By tokens alone the time of
// a rank is as uneven as the costs of nine experts drawn at random; by time it is packed as EPLB packs loads; the blend
// lies between.
TEST(ComputeAwarePlacement, EvensOutTheTimeThatTokensHide) {
  const PlacementShape shape{.layers = 8, .experts = 256, .slots = 288, .ranks = 32};
  RandomStream random(11, "skewed");
  std::vector<double> tokens, time_per_token, time;
  for (int i = 0; i < shape.layers * shape.experts; ++i) {
    tokens.push_back(std::floor(1000 * std::exp2(3 * random.Unit())));
    time_per_token.push_back(std::exp2(4 * random.Unit()));
    time.push_back(tokens.back() * time_per_token.back());
  }
  const auto utilisation = [&](double alpha) {
    const Placement placement = *Place(ComputeAware(alpha), shape, tokens, time_per_token);
    double sum = 0;
    for (int layer = 0; layer < shape.layers; ++layer) {
      sum += Utilisation(placement, absl::MakeConstSpan(time).subspan(layer * shape.experts, shape.experts), layer);
    }
    return sum / shape.layers;
  };
  EXPECT_LT(utilisation(0), 0.4);
  EXPECT_GT(utilisation(0.5), 0.5);
  EXPECT_LT(utilisation(0.5), 0.7);
  EXPECT_GT(utilisation(1), 0.98);
}

// Layer 1 has only been profiled where it has no tokens; layer 2 has none at all.
TEST(ComputeAwarePlacement, ALayerWithoutTimeGoesByTokens) {
  const PlacementShape shape{.layers = 3, .experts = 2, .slots = 3, .ranks = 3};
  const Placement placement = *Place(ComputeAware(1), shape, {9, 1, 9, 0, 0, 0}, {1, 10, 0, 5, 1, 1});
  EXPECT_THAT(Phy2Log(placement, 0), ElementsAre(0, 1, 1));
  EXPECT_THAT(Phy2Log(placement, 1), ElementsAre(0, 1, 0));
  EXPECT_THAT(Phy2Log(placement, 2), ElementsAre(0, 1, 0));
}

// Only proportions matter: of the time too.
TEST(ComputeAwarePlacement, ScalingLoadsOrTimesChangesNothing) {
  for (const PlacementShape& shape : kShapes) {
    const Drawn drawn = Draw(shape, 2, 5);
    Drawn scaled = drawn;
    for (double& tokens : scaled.tokens) tokens *= 1024;
    for (double& time : scaled.time_per_token) time /= 4096;
    EXPECT_EQ(*Place(ComputeAware(0.3), shape, scaled.tokens, scaled.time_per_token),
              *Place(ComputeAware(0.3), shape, drawn.tokens, drawn.time_per_token));
  }
}

TEST(ComputeAwarePlacement, AlphaIsAShare) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  for (const double alpha : {-0.01, 1.01, std::numeric_limits<double>::quiet_NaN(), HUGE_VAL}) {
    EXPECT_THAT(NewPlacementPolicy(ComputeAware(alpha), shape).status().message(),
                HasSubstr("is not in [0, 1]; 0 goes by tokens, 1 by compute time, 0.5 by both"));
    EXPECT_THAT(NewPlacementPolicy(ComputeAware(alpha, true), shape).status().message(),
                HasSubstr("compute_aware_hierarchical: alpha: "));
  }
  EXPECT_TRUE(NewPlacementPolicy(ComputeAware(0), shape).ok());
  EXPECT_TRUE(NewPlacementPolicy(ComputeAware(1), shape).ok());
}

TEST(ComputeAwarePlacement, SaysWhatItCannotPlace) {
  const PlacementShape shape{.layers = 1, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 8};
  EXPECT_EQ(
      NewPlacementPolicy(ComputeAware(0.5, true), shape).status().message(),
      "compute_aware_hierarchical: as eplb: expert_groups: 8 do not divide 12 experts; 1 or mode GLOBAL would fit "
      "(compute_aware is GLOBAL)");
  EXPECT_TRUE(NewPlacementPolicy(ComputeAware(0.5), shape).ok());

  const PlacementShape small{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  EXPECT_THAT(Place(ComputeAware(1), small, {1, 1}, {1, NAN}).status().message(),
              HasSubstr("time per token of layer 0, expert 1: nan is not a finite number"));
  EXPECT_THAT(Place(ComputeAware(1), small, {1, 1}, {-1, 1}).status().message(),
              HasSubstr("time per token of layer 0, expert 0: -1 is negative"));
  // Two rows of 3e38 add up to more than the largest float32.
  EXPECT_THAT(Place(ComputeAware(0.5), small, {1, 3e38, 1, 3e38}, {1, 1}).status().message(),
              HasSubstr("placement: total load of layer 0, expert 1: 6e+38 is more than a float32 can hold"));
}

}  // namespace
}  // namespace epsim
