// Question: does the step that stands for the expectation hold what is expected?
#include "models/load/uniform_load.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

UniformLoad Expect(const LoadCase& load) {
  const absl::StatusOr<UniformLoad> uniform = ExpectUniformLoad(load, {.samples = 2000});
  EXPECT_TRUE(uniform.ok()) << uniform.status();
  return uniform.value_or(UniformLoad{});
}

// Of one layer, per chip.
struct ChipLoads {
  std::vector<int64_t> active, pairs;
  int64_t most_active() const { return *std::max_element(active.begin(), active.end()); }
  int64_t most_pairs() const { return *std::max_element(pairs.begin(), pairs.end()); }
};
ChipLoads Loads(const LoadCase& load, const std::vector<uint32_t>& counts) {
  ChipLoads loads;
  size_t expert = 0;
  for (int chip = 0; chip < load.chips; ++chip) {
    loads.active.push_back(0);
    loads.pairs.push_back(0);
    for (int i = 0; i < ExpertsOfChip(load, chip); ++i, ++expert) {
      loads.active.back() += counts[expert] > 0;
      loads.pairs.back() += counts[expert];
    }
  }
  return loads;
}

const std::vector<LoadCase> kCases = {
    {.batch = 4, .chips = 32},
    {.batch = 512, .chips = 32},
    {.batch = 1, .chips = 1},
    {.batch = 3, .chips = 4, .experts = 1, .top_k = 1},
    {.batch = 1, .chips = 256},
    {.batch = 1, .chips = 3, .experts = 8, .top_k = 8},
    {.batch = 7, .chips = 6},  // 43 or 42 experts a chip.
    {.batch = 40, .chips = 300, .experts = 100, .top_k = 3},
    {.batch = 3, .chips = 2, .experts = 4, .top_k = 3},
    {.batch = 2000, .chips = 8, .experts = 16, .top_k = 4},
};

TEST(UniformLoad, ExpectsTheExactMaximumAndMean) {
  const UniformLoad load = Expect({.batch = 4, .chips = 32});
  EXPECT_NEAR(load.most_active, 3.174435835682, 1e-11);
  EXPECT_NEAR(load.active, 30.531005859375, 1e-11);
  EXPECT_GT(load.most_pairs.mean, load.most_active);
}

TEST(UniformLoad, CountsAreThoseOfSomeStep) {
  for (const LoadCase& load_case : kCases) {
    const UniformLoad load = Expect(load_case);
    for (int layer = 0; layer < 20; ++layer) {
      const std::vector<uint32_t> counts = UniformCounts(load, layer);
      ASSERT_EQ(counts.size(), static_cast<size_t>(load_case.experts));
      EXPECT_EQ(std::accumulate(counts.begin(), counts.end(), int64_t{0}), load_case.batch * load_case.top_k);
      EXPECT_LE(*std::max_element(counts.begin(), counts.end()), load_case.batch);
      // A token has top_k distinct experts.
      EXPECT_GE(std::count_if(counts.begin(), counts.end(), [](uint32_t c) { return c > 0; }), load_case.top_k);
    }
  }
}

TEST(UniformLoad, CountsComeToTheExpectationsOverLayers) {
  constexpr int kLayers = 400;
  for (const LoadCase& load_case : kCases) {
    const UniformLoad load = Expect(load_case);
    double most_active = 0, most_pairs = 0, active = 0;
    for (int layer = 0; layer < kLayers; ++layer) {
      const ChipLoads loads = Loads(load_case, UniformCounts(load, layer));
      most_active += static_cast<double>(loads.most_active()) / kLayers;
      most_pairs += static_cast<double>(loads.most_pairs()) / kLayers;
      active += static_cast<double>(std::accumulate(loads.active.begin(), loads.active.end(), int64_t{0})) / kLayers;
    }
    EXPECT_NEAR(most_active, load.most_active, 0.02 * load.most_active) << load_case.batch << " on " << load_case.chips;
    EXPECT_NEAR(most_pairs, load.most_pairs.mean, 0.02 * load.most_pairs.mean)
        << load_case.batch << " on " << load_case.chips;
    EXPECT_NEAR(active, load.active, 0.05 * load.active) << load_case.batch << " on " << load_case.chips;
  }
}

TEST(UniformLoad, ExpertsOfAChipDifferAsThoseOfAStep) {
  // One chip of 64 experts, 16,000 pairs, 250 an expert: of a drawn step, binomial with variance 250 (1 - 1/16).
  const LoadCase load_case{.batch = 4000, .chips = 1, .experts = 64, .top_k = 4};
  const std::vector<uint32_t> counts = UniformCounts(Expect(load_case), 0);
  double squares = 0;
  for (const uint32_t count : counts) squares += std::pow(count - 250.0, 2) / 64;
  EXPECT_NEAR(squares, 250 * (1 - 1.0 / 16), 0.05 * 250);
}

TEST(UniformLoad, TheBusiestChipChangesFromLayerToLayer) {
  const LoadCase load_case{.batch = 64, .chips = 8, .experts = 64, .top_k = 4};
  const UniformLoad load = Expect(load_case);
  for (int layer = 0; layer < 16; ++layer) {
    const ChipLoads loads = Loads(load_case, UniformCounts(load, layer));
    EXPECT_EQ(std::max_element(loads.pairs.begin(), loads.pairs.end()) - loads.pairs.begin(), layer % 8);
  }
}

TEST(UniformLoad, ExpertTimeLiesBetweenThoseOfWholeNumbers) {
  // Two chips of two experts, one token of one expert: one active expert, one pair, whatever happens.
  const auto costs = RoundCosts();
  const UniformLoad sure = Expect({.batch = 1, .chips = 4, .experts = 8, .top_k = 1});
  EXPECT_EQ(ExpectedExpertTime(sure, *costs).time, costs->RoutedExperts(std::vector<int32_t>{1, 0}).time);
  // Two tokens of one expert each on one chip of two experts: 1 or 2 active experts with probability 1/2 each, and the
  // time is bound by the weights read.
  const UniformLoad even = Expect({.batch = 2, .chips = 1, .experts = 2, .top_k = 1});
  EXPECT_NEAR(even.most_active, 1.5, 1e-14);
  const Duration one = costs->RoutedExperts(std::vector<int32_t>{2, 0}).time;
  const Duration two = costs->RoutedExperts(std::vector<int32_t>{1, 1}).time;
  EXPECT_LT(one, two);
  EXPECT_NEAR(static_cast<double>(ExpectedExpertTime(even, *costs).time.count()),
              static_cast<double>((one + two).count()) / 2, 1);
}

}  // namespace
}  // namespace epsim
