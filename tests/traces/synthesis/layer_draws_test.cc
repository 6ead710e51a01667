#include "traces/synthesis/layer_draws.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(AliasTableTest, EvenlySpacedInputsGiveProportions) {
  // 2^20 evenly spaced 64-bit inputs walk through 7 entries of 2^20 / 7 inputs each, so each of an entry's two parts is
  // hit within one input of its size; an index owns parts of at most 7 entries: its count is within 8 of the exact one.
  const std::vector<uint32_t> weights = {1, 0, 1 << 24, 77777, 5, 3 << 20, 3 << 20};
  const double total = 1.0 + (1 << 24) + 77777 + 5 + 2.0 * (3 << 20);
  const AliasTable table(weights);
  std::vector<int> counts(weights.size(), 0);
  for (uint64_t i = 0; i < (1 << 20); ++i) ++counts[table(i << 44)];
  EXPECT_EQ(counts[1], 0);
  for (size_t e = 0; e < weights.size(); ++e) EXPECT_NEAR(counts[e], weights[e] / total * (1 << 20), 8) << e;
}

TEST(LayerDrawsTest, IdsAreDistinctAndExpertsWithoutWeightNeverComeUp) {
  std::vector<uint32_t> weights(16, 1);
  weights[0] = 1 << 24;  // Nearly every draw hits it, so the rest is found without rejection.
  weights[15] = 0;
  LayerDraws draws(6, 0.3, {weights}, RandomStream(1, "test"));
  std::vector<uint16_t> ids(6);
  int with_heavy = 0;
  for (int t = 0; t < 10000; ++t) {
    draws.Draw(0, t == 0 ? nullptr : ids.data(), ids.data());
    EXPECT_EQ(std::set<uint16_t>(ids.begin(), ids.end()).size(), 6u);
    EXPECT_EQ(std::count(ids.begin(), ids.end(), 15), 0);
    with_heavy += std::count(ids.begin(), ids.end(), 0);
  }
  // Missed only if six draws in a row hit none of 2^24 / (2^24 + 14): practically never.
  EXPECT_EQ(with_heavy, 10000);
}

TEST(LayerDrawsTest, DrawsWithoutReplacementInProportion) {
  // Weights 4, 2, 1, 1, two drawn.  P(first two are {0, 1}) = 4/8 * 2/4 + 2/8 * 4/6 = 5/12, and so on; expert 0 is in
  // with 1/2 + 1/4 * 4/6 + 2 * 1/8 * 4/7 = 0.80952.  40,000 tokens: standard deviation 0.0025 at most.
  LayerDraws draws(2, 0, {{4, 2, 1, 1}}, RandomStream(2, "test"));
  int has0 = 0, has01 = 0;
  uint16_t ids[2];
  for (int t = 0; t < 40000; ++t) {
    draws.Draw(0, nullptr, ids);
    const std::set<uint16_t> set(ids, ids + 2);
    has0 += set.count(0);
    has01 += set.count(0) && set.count(1);
  }
  EXPECT_NEAR(has0 / 40000.0, 0.80952, 0.010);
  EXPECT_NEAR(has01 / 40000.0, 5.0 / 12, 0.010);
}

TEST(LayerDrawsTest, KeepsIdsWithTheGivenProbability) {
  // 1 of 4096 experts alike: a redrawn id is a previous one with probability about 8 / 4096.  The expected overlap is
  // 0.37 + 0.63 * 8 / 4096 = 0.3712; over 80,000 ids the standard deviation is 0.0017.
  LayerDraws draws(8, 0.37, {std::vector<uint32_t>(4096, 1)}, RandomStream(3, "test"));
  std::vector<uint16_t> ids(8), before(8);
  int64_t kept = 0;
  draws.Draw(0, nullptr, ids.data());
  for (int t = 0; t < 10000; ++t) {
    before = ids;
    draws.Draw(0, ids.data(), ids.data());
    for (uint16_t id : ids) kept += std::count(before.begin(), before.end(), id);
  }
  EXPECT_NEAR(kept / 80000.0, 0.3712, 0.007);
}

TEST(LayerDrawsTest, DealingKeepsEveryRunWithinOne) {
  LayerDraws draws = LayerDraws::Dealt(10, 3, RandomStream(4, "test"));
  std::vector<std::vector<uint16_t>> rows(60, std::vector<uint16_t>(3));
  for (auto& row : rows) draws.Draw(0, nullptr, row.data());
  for (size_t begin = 0; begin < rows.size(); ++begin) {
    std::vector<int> counts(10, 0);
    for (size_t end = begin; end < rows.size(); ++end) {
      for (uint16_t id : rows[end]) ++counts[id];
      EXPECT_LE(*std::max_element(counts.begin(), counts.end()) - *std::min_element(counts.begin(), counts.end()), 1);
    }
  }
}

TEST(LayerDrawsTest, RotationMovesEveryIdUp) {
  LayerDraws draws(1, 0, {{0, 0, 0, 1}}, RandomStream(5, "test"));
  uint16_t id;
  draws.Draw(0, nullptr, &id);
  EXPECT_EQ(id, 3);
  draws.Rotate(3);
  draws.Draw(0, nullptr, &id);
  EXPECT_EQ(id, 2);  // (3 + 3) mod 4.
}

TEST(LayerDrawsTest, ExchangeSwapsPopularityInEveryDomain) {
  LayerDraws draws(1, 0, {{0, 0, 0, 1}, {1, 0, 0, 0}}, RandomStream(6, "test"));
  draws.Exchange(3, 0);
  uint16_t id;
  draws.Draw(0, nullptr, &id);
  EXPECT_EQ(id, 0);
  draws.Draw(1, nullptr, &id);
  EXPECT_EQ(id, 3);
}

}  // namespace
}  // namespace epsim
