// Question: are indices drawn in proportion to their weights?
#include "models/load/alias_table.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace epsim {
namespace {

std::vector<int> Draw(const std::vector<double>& weights, int draws) {
  const AliasTable table(weights);
  RandomStream random(1, "alias_table_test");
  std::vector<int> count(weights.size());
  for (int i = 0; i < draws; ++i) ++count[table.Draw(&random)];
  return count;
}

TEST(AliasTable, DrawsInProportion) {
  const std::vector<double> weights = {1, 0, 5, 2, 0.01, 7, 0};
  constexpr int kDraws = 1'000'000;
  const std::vector<int> count = Draw(weights, kDraws);
  for (size_t i = 0; i < weights.size(); ++i) {
    const double p = weights[i] / 15.01;
    EXPECT_NEAR(count[i], kDraws * p, 4 * std::sqrt(kDraws * p * (1 - p))) << i;  // 0 +- 0 for no weight.
  }
}

TEST(AliasTable, TakesWeightsWhoseSumOverflowsOrUnderflows) {
  for (const double scale : {1e308, 1e-308}) {
    const std::vector<int> count = Draw({scale, scale, scale, 0}, 30'000);
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(count[i], 10'000, 4 * std::sqrt(30'000 * 2 / 9.0));
    EXPECT_EQ(count[3], 0);
  }
}

TEST(AliasTable, AnIndexWithoutWeightIsNeverDrawnAmongManyThatRound) {
  std::vector<double> weights(1000, 0.1);
  for (size_t i = 0; i < weights.size(); i += 3) weights[i] = 0;
  const std::vector<int> count = Draw(weights, 1'000'000);
  for (size_t i = 0; i < weights.size(); i += 3) EXPECT_EQ(count[i], 0);
}

}  // namespace
}  // namespace epsim
