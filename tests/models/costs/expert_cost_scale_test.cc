#include "models/costs/expert_cost_scale.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/cost_view.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

absl::StatusOr<std::unique_ptr<const ExpertCostScale>> New(const std::string& config, int layers, int experts,
                                                           uint64_t seed = 1) {
  return NewExpertCostScale(Parse<ExpertCostScaleConfig>(config), layers, experts, seed);
}

TEST(ExpertCostScaleTest, ARowIsForAllLayers) {
  const auto scale = New("scale: [1, 2.5, 1.2]", 2, 3).value();
  EXPECT_THAT(scale->of(Layer{0}), ElementsAre(1, 2.5, 1.2));
  EXPECT_THAT(scale->of(Layer{1}), ElementsAre(1, 2.5, 1.2));
}

TEST(ExpertCostScaleTest, ANumberAnExpertIsLayerAfterLayer) {
  const auto scale = New("scale: [1, 2, 3, 4, 5, 6]", 2, 3).value();
  EXPECT_THAT(scale->of(Layer{0}), ElementsAre(1, 2, 3));
  EXPECT_THAT(scale->of(Layer{1}), ElementsAre(4, 5, 6));
}

TEST(ExpertCostScaleTest, NothingToScaleIsNull) {
  EXPECT_EQ(New("", 2, 3).value(), nullptr);
  EXPECT_EQ(New("spread: 0", 2, 3).value(), nullptr);
  EXPECT_EQ(New("scale: [1, 1, 1]", 2, 3).value(), nullptr);
}

TEST(ExpertCostScaleTest, SlotsHaveTheScaleOfTheirExpert) {
  const auto scale = New("scale: [9, 9, 9, 4, 5, 6]", 2, 3).value();
  std::vector<double> of_slots(4);
  scale->Gather(Layer{1}, {LogicalExpert{2}, LogicalExpert{0}, kNoExpert, LogicalExpert{2}}, absl::MakeSpan(of_slots));
  EXPECT_THAT(of_slots, ElementsAre(6, 4, 1, 6));
}

// ln s = spread * z - ln(mean of x) has the standard deviation `spread`; over 58 * 256 draws the estimate's own is
// spread / sqrt(2 * 14,848) = 0.58 % of it, so 3 % is five of them.
TEST(ExpertCostScaleTest, ASpreadIsDrawnWithMeanOneInEveryLayer) {
  const int layers = 58, experts = 256;
  for (const double spread : {0.1, 0.5, 1.0}) {
    const auto scale = New("spread: " + std::to_string(spread), layers, experts).value();
    double squares = 0;
    for (int layer = 0; layer < layers; ++layer) {
      const absl::Span<const double> row = scale->of(Layer(layer));
      EXPECT_NEAR(std::accumulate(row.begin(), row.end(), 0.0), experts, 1e-9);
      double mean = 0;
      for (const double s : row) mean += std::log(s) / experts;
      for (const double s : row) squares += std::pow(std::log(s) - mean, 2);
    }
    EXPECT_NEAR(std::sqrt(squares / (layers * (experts - 1))), spread, 0.03 * spread);
  }
}

// The quantiles of a normal distribution: 68.27 % within one deviation, 95.45 % within two (of 14,848, each +-0.4 %).
TEST(ExpertCostScaleTest, ASpreadIsLogNormal) {
  const auto scale = New("spread: 0.7", 58, 256).value();
  int one = 0, two = 0, above = 0;
  for (int layer = 0; layer < 58; ++layer) {
    double mean = 0;
    for (const double s : scale->of(Layer(layer))) mean += std::log(s) / 256;
    for (const double s : scale->of(Layer(layer))) {
      const double z = (std::log(s) - mean) / 0.7;
      one += std::abs(z) < 1;
      two += std::abs(z) < 2;
      above += z > 0;
    }
  }
  EXPECT_NEAR(one / 14'848.0, 0.6827, 0.02);
  EXPECT_NEAR(two / 14'848.0, 0.9545, 0.01);
  EXPECT_NEAR(above / 14'848.0, 0.5, 0.02);
}

TEST(ExpertCostScaleTest, TheSeedDraws) {
  const auto row = [](uint64_t seed) {
    const auto scale = New("spread: 0.5", 2, 8, seed).value();
    return std::vector<double>(scale->of(Layer{1}).begin(), scale->of(Layer{1}).end());
  };
  EXPECT_EQ(row(1), row(1));
  EXPECT_NE(row(1), row(2));
}

TEST(ExpertCostScaleTest, SaysWhatWouldDo) {
  const auto error = [](const std::string& config) { return std::string(New(config, 4, 3).status().message()); };
  EXPECT_EQ(error("scale: [1, 2]"),
            "expert_cost_scale.scale: 2 numbers for a model of 4 MoE layers of 3 experts; 3 would do, for all layers, "
            "or 12");
  EXPECT_EQ(error("scale: [1, 0, 1]"),
            "expert_cost_scale.scale: number 2 is 0; it must be more than 0 and at most 1000");
  EXPECT_EQ(error("scale: [1, 2, nan]"),
            "expert_cost_scale.scale: number 3 is nan; it must be more than 0 and at most 1000");
  EXPECT_EQ(error("scale: [-1, 2, 3]"),
            "expert_cost_scale.scale: number 1 is -1; it must be more than 0 and at most 1000");
  EXPECT_EQ(error("scale: [1, 2, 1001]"),
            "expert_cost_scale.scale: number 3 is 1001; it must be more than 0 and at most 1000");
  EXPECT_EQ(error("spread: -0.1"), "expert_cost_scale.spread is -0.1; it must be from 0 to 2");
  EXPECT_EQ(error("spread: inf"), "expert_cost_scale.spread is inf; it must be from 0 to 2");
  EXPECT_EQ(error("spread: 0.5 scale: [1, 2, 3]"),
            "expert_cost_scale: scale and spread are both given; one of them would do");
  // What needs no model is refused with the rest of the cost config.
  EXPECT_EQ(CompleteCostConfig(Parse<CostConfig>("expert_cost_scale { spread: 3 }"), GpuSpec()).status().message(),
            "expert_cost_scale.spread is 3; it must be from 0 to 2");
  EXPECT_TRUE(New("scale: [1e-6, 1000, 1]", 4, 3).ok());
}

// The view asks by logical experts.
TEST(ModelCostViewTest, ScalesTheExpertsAskedFor) {
  const auto costs = RoundCosts();
  const auto scale = New("scale: [9, 9, 9, 9, 1, 2.5, 1.2, 3]", 2, 4).value();
  const ModelCostView view(*costs, scale.get());
  EXPECT_EQ(view.ExpertTime(Layer{1}, {LogicalExpert{2}, LogicalExpert{0}, kNoExpert}, {3, 17, 0}),
            costs->RoutedExperts({3, 17, 0}, {1.2, 1, 1}).time);
  EXPECT_NE(view.ExpertTime(Layer{1}, {LogicalExpert{0}, LogicalExpert{2}, kNoExpert}, {3, 17, 0}),
            costs->RoutedExperts({3, 17, 0}, {1.2, 1, 1}).time);
}

}  // namespace
}  // namespace epsim
