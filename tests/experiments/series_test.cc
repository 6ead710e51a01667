#include "experiments/series.h"

#include <numeric>

#include "gtest/gtest.h"

namespace epsim {
namespace {

std::vector<double> Range(int n) {
  std::vector<double> values(n);
  std::iota(values.begin(), values.end(), 1);
  return values;
}

// Nearest rank: the ceil(q n)-th smallest.
TEST(Series, PercentileIsNearestRank) {
  EXPECT_EQ(Percentile(Range(1000), 0.99), 990);
  EXPECT_EQ(Percentile(Range(1000), 0.5), 500);
  EXPECT_EQ(Percentile(Range(100), 0.05), 5);
}

// Five samples beyond p99 are 1 % of 500.
TEST(Series, PercentilesFromTooFewSamplesAreRefused) {
  EXPECT_EQ(SamplesFor(0.99), 500);
  EXPECT_EQ(SamplesFor(0.9), 50);
  EXPECT_EQ(SamplesFor(0.5), 10);
  EXPECT_EQ(SamplesFor(0.05), 100);
  EXPECT_EQ(Percentile(Range(499), 0.99), std::nullopt);
  EXPECT_EQ(Percentile(Range(500), 0.99), 495);
}

// 20 blocks of two steps, block means alternating 1 and 3: mean 2, sample variance 20/19, half width
// 2.093024 * sqrt(20/19) / sqrt(20) = 2.093024 / sqrt(19) = 0.4801726.
TEST(Series, IntervalIsTheBatchMeansFormula) {
  std::vector<double> values;
  for (int block = 0; block < kBlocks; ++block) values.insert(values.end(), 2, block % 2 == 0 ? 1 : 3);
  const std::optional<Interval> interval = MeanInterval(values);
  ASSERT_TRUE(interval.has_value());
  EXPECT_NEAR(interval->low, 2 - 0.4801726, 1e-6);
  EXPECT_NEAR(interval->high, 2 + 0.4801726, 1e-6);
  values.pop_back();
  EXPECT_EQ(MeanInterval(values), std::nullopt);
}

// A ratio is that of the sums, not the mean of the ratios.
TEST(Series, RatioIsOfTheSums) {
  std::vector<double> tokens(40, 10), seconds(40, 2);
  const std::optional<Interval> interval = RatioInterval(tokens, seconds);
  ASSERT_TRUE(interval.has_value());
  EXPECT_DOUBLE_EQ(interval->low, 5);
  EXPECT_DOUBLE_EQ(interval->high, 5);
}

}  // namespace
}  // namespace epsim
