// When the adaptive policy routes anew.
#include "policies/routing/adaptive_routing.h"

#include <cmath>
#include <string>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// Two layers of four experts: what is asked of layer 0 is even, of layer 1 skewed, unless a test says otherwise.
class AdaptiveRoutingTest : public testing::Test {
 protected:
  void Configure(const std::string& adaptive, int ranks = 4) {
    RoutingPolicyConfig config;
    ASSERT_TRUE(ParseTextProto("adaptive { " + adaptive + " }", "config", &config).ok());
    policy_ = NewRoutingPolicy(config, {.layers = 2, .experts = 4, .top_k = 1, .ranks = ranks}).value();
  }
  // Which layers a step of `tokens` tokens routes anew.
  std::vector<int> Step(int64_t tokens, std::vector<int32_t> load = {5, 5, 5, 5, 17, 1, 1, 1}) {
    policy_->BeginStep(tokens);
    std::vector<int> layers;
    for (int layer = 0; layer < 2; ++layer) {
      if (policy_->Routes(Layer(layer))) layers.push_back(layer);
    }
    policy_->EndStep(load);
    return layers;
  }

  std::unique_ptr<RoutingPolicy> policy_;
};

TEST_F(AdaptiveRoutingTest, IsOffUntilALoadHasBeenSeen) {
  Configure("");
  EXPECT_THAT(Step(1000), ElementsAre());
  EXPECT_THAT(Step(1000), ElementsAre(1));
}

TEST_F(AdaptiveRoutingTest, IsOffAtFirstForBatchesInBetween) {
  Configure("");
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Step(128), ElementsAre()) << "128 is not above 128";
}

TEST_F(AdaptiveRoutingTest, StaysOnInBetweenOnceABatchWasLarge) {
  Configure("");
  Step(128);
  EXPECT_THAT(Step(129), ElementsAre(1));
  EXPECT_THAT(Step(128), ElementsAre(1));
  EXPECT_THAT(Step(32), ElementsAre(1)) << "32 is not below 32";
}

TEST_F(AdaptiveRoutingTest, StaysOffInBetweenOnceABatchWasSmall) {
  Configure("");
  Step(129);
  EXPECT_THAT(Step(31), ElementsAre());
  EXPECT_THAT(Step(32), ElementsAre());
  EXPECT_THAT(Step(128), ElementsAre());
  EXPECT_THAT(Step(129), ElementsAre(1));
}

TEST_F(AdaptiveRoutingTest, IsOffOnOneRank) {
  Configure("", 1);
  for (int i = 0; i < 3; ++i) EXPECT_THAT(Step(100000), ElementsAre());
}

TEST_F(AdaptiveRoutingTest, TheBoundsOfTheBatchAreConfigurable) {
  Configure("off_below_tokens: 4 on_above_tokens: 6");
  Step(6);
  EXPECT_THAT(Step(6), ElementsAre());
  EXPECT_THAT(Step(7), ElementsAre(1));
  EXPECT_THAT(Step(4), ElementsAre(1));
  EXPECT_THAT(Step(3), ElementsAre());
}

// 6 6 4 4: mean 5, standard deviation 1, variation 0.2 exactly; 7 5 5 3: sqrt(2) / 5 = 0.283.
TEST_F(AdaptiveRoutingTest, ALayerNeedsMoreVariationThanTheThreshold) {
  Configure("");
  Step(1000, {6, 6, 4, 4, 7, 5, 5, 3});
  EXPECT_THAT(Step(1000), ElementsAre(1));
  Configure("variation_threshold: 0.19");
  Step(1000, {6, 6, 4, 4, 7, 5, 5, 3});
  EXPECT_THAT(Step(1000), ElementsAre(0, 1));
  Configure("variation_threshold: 0.3");
  Step(1000, {6, 6, 4, 4, 7, 5, 5, 3});
  EXPECT_THAT(Step(1000), ElementsAre());
}

// Two skewed steps that cancel: over a window of one step the layer is skewed, over one of two it is not.
TEST_F(AdaptiveRoutingTest, TheWindowIsThePreviousSteps) {
  const std::vector<int32_t> up = {9, 1, 9, 1, 5, 5, 5, 5}, down = {1, 9, 1, 9, 5, 5, 5, 5}, even(8, 5);
  Configure("window_steps: 1");
  Step(1000, up);
  EXPECT_THAT(Step(1000, down), ElementsAre(0));
  EXPECT_THAT(Step(1000, even), ElementsAre(0));
  EXPECT_THAT(Step(1000, even), ElementsAre());
  Configure("window_steps: 2");
  Step(1000, up);
  EXPECT_THAT(Step(1000, down), ElementsAre(0)) << "one step of the window is there";
  EXPECT_THAT(Step(1000, even), ElementsAre());
  EXPECT_THAT(Step(1000, even), ElementsAre(0)) << "down and even: 6 14 6 14";
  EXPECT_THAT(Step(1000, even), ElementsAre());
}

TEST_F(AdaptiveRoutingTest, ALayerWithoutLoadIsEven) {
  Configure("variation_threshold: 0");
  Step(1000, std::vector<int32_t>(8, 0));
  EXPECT_THAT(Step(1000), ElementsAre());
}

TEST(Variation, IsThePopulationsDeviationOverTheMean) {
  EXPECT_DOUBLE_EQ(Variation(std::vector<int64_t>{6, 6, 4, 4}), 0.2);
  EXPECT_DOUBLE_EQ(Variation(std::vector<int64_t>{8, 0, 0, 0}), std::sqrt(3.0));
  EXPECT_EQ(Variation(std::vector<int64_t>{0, 0}), 0);
}

TEST(AdaptiveRouting, RefusesWhatIsOutOfRange) {
  const auto message = [](const std::string& text) {
    RoutingPolicyConfig config;
    EXPECT_TRUE(ParseTextProto("adaptive { " + text + " }", "config", &config).ok());
    return std::string(CompleteRoutingConfig(config).status().message());
  };
  EXPECT_EQ(message(""), "");
  EXPECT_THAT(message("variation_threshold: -0.1"), HasSubstr("routing.adaptive.variation_threshold: -0.1"));
  EXPECT_THAT(message("variation_threshold: nan"), HasSubstr("routing.adaptive.variation_threshold: nan"));
  EXPECT_THAT(message("window_steps: 5000"), HasSubstr("routing.adaptive.window_steps: 5000 is more than 4096"));
  EXPECT_THAT(message("off_below_tokens: 9 on_above_tokens: 8"), HasSubstr("on_above_tokens: 8 is less than"));
  EXPECT_THAT(message("expert_choice { capacity_factor: 0 }"),
              HasSubstr("routing.adaptive.expert_choice.capacity_factor: 0 is not"));
  EXPECT_EQ(message("off_below_tokens: 500"), "") << "on above 500, then";
}

}  // namespace
}  // namespace epsim
