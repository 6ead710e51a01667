#include "experiments/accuracy/power_law_load.h"

#include <algorithm>
#include <numeric>

#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(DrawPowerLawLoad, GivesAllPairsAndNoExpertATokenTwice) {
  RandomStream random(1, "test");
  for (const int tokens : {1, 7, 64, 4096}) {
    for (const double alpha : {0.3, 1.0, 1.01, 3.0}) {
      const std::vector<int32_t> load = DrawPowerLawLoad(tokens, 64, 8, alpha, random);
      EXPECT_EQ(load.size(), 64u);
      EXPECT_EQ(std::accumulate(load.begin(), load.end(), 0), tokens * 8);
      EXPECT_GE(*std::min_element(load.begin(), load.end()), 0);
      EXPECT_LE(*std::max_element(load.begin(), load.end()), tokens);
    }
  }
}

TEST(DrawPowerLawLoad, AnExpertForEachChoiceIsEveryExpert) {
  RandomStream random(1, "test");
  EXPECT_EQ(DrawPowerLawLoad(100, 4, 4, 1.2, random), std::vector<int32_t>(4, 100));
}

// With alpha = 0.01 the density is all but flat: the mean of the greatest of 256 alike is close to its bound, 1.6 times
// the mean of all times 0.8 / 0.5; with alpha = 2 a few experts have most tokens.
TEST(DrawPowerLawLoad, AlphaSkews) {
  const auto peak = [](double alpha) {  // Mean over draws of the greatest over the mean.
    RandomStream random(2, "test");
    double sum = 0;
    for (int draw = 0; draw < 50; ++draw) {
      const std::vector<int32_t> load = DrawPowerLawLoad(10'000, 256, 8, alpha, random);
      sum += *std::max_element(load.begin(), load.end()) / (10'000.0 * 8 / 256);
    }
    return sum / 50;
  };
  EXPECT_NEAR(peak(0.01), 2, 0.1);
  EXPECT_GT(peak(0.8), 1.5 * peak(0.01));
  EXPECT_GT(peak(1.2), 1.5 * peak(0.8));
}

TEST(DrawPowerLawLoad, IsTheSameForTheSameStream) {
  RandomStream one(3, "test"), other(3, "test");
  EXPECT_EQ(DrawPowerLawLoad(512, 128, 8, 1.2, one), DrawPowerLawLoad(512, 128, 8, 1.2, other));
}

}  // namespace
}  // namespace epsim
