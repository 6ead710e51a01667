#include "traces/synthesis/popularity.h"

#include <algorithm>
#include <cmath>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "traces/synthesis/layer_draws.h"

namespace epsim {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;

TEST(PopularityTest, ScalesToTopK) {
  EXPECT_THAT(
      InclusionProbabilities(absl::Span<const double>({1, 2, 3, 4}), 1),
      ElementsAre(DoubleNear(0.1, 1e-12), DoubleNear(0.2, 1e-12), DoubleNear(0.3, 1e-12), DoubleNear(0.4, 1e-12)));
}

TEST(PopularityTest, WhatNobodyCanTakeGoesToTheOthersInProportion) {
  // Two of 10 : 1 : 2 : 3.  The first would get 20/16 > 1: it gets 1, the others share the other 1 as 1 : 2 : 3.
  EXPECT_THAT(InclusionProbabilities(absl::Span<const double>({10, 1, 2, 3}), 2),
              ElementsAre(1.0, DoubleNear(1 / 6.0, 1e-12), DoubleNear(2 / 6.0, 1e-12), DoubleNear(3 / 6.0, 1e-12)));
  // Capping one may push the next over: 100 : 10 : 1 : 1 and three.
  EXPECT_THAT(InclusionProbabilities(absl::Span<const double>({100, 10, 1, 1}), 3),
              ElementsAre(1.0, 1.0, DoubleNear(0.5, 1e-12), DoubleNear(0.5, 1e-12)));
}

TEST(PopularityTest, ZipfFollowsThePowerLawByIdOrShuffled) {
  LayerPopularity zipf;
  zipf.mutable_zipf()->set_exponent(1);
  zipf.mutable_zipf()->set_by_id(true);
  RandomStream order(1, "test");
  std::vector<double> by_id = InclusionProbabilities(zipf, 4, 1, order);
  const double sum = 1 + 1 / 2.0 + 1 / 3.0 + 1 / 4.0;
  for (int e = 0; e < 4; ++e) EXPECT_NEAR(by_id[e], 1.0 / (e + 1) / sum, 1e-12);

  zipf.mutable_zipf()->set_by_id(false);
  std::vector<double> large = InclusionProbabilities(zipf, 64, 1, order);
  EXPECT_FALSE(std::is_sorted(large.rbegin(), large.rend()));
  std::sort(large.rbegin(), large.rend());
  EXPECT_NEAR(large[0] / large[63], 64, 1e-9);
}

TEST(PopularityTest, WeightsAreTheClosedForm) {
  // Without keeping, w = -ln(1 - pi): 1/2 and 3/4 are 1 : 2.
  EXPECT_THAT(DrawingWeights(absl::Span<const double>({0.5, 0.75, 0.0}), 0), ElementsAre(1 << 23, 1 << 24, 0));
  // With rho = 1/2: ln(0.75 / 0.5) and ln(0.625 / 0.25): 0.405465 / 0.916291 = 0.442507 of 2^24.
  EXPECT_EQ(DrawingWeights(absl::Span<const double>({0.5, 0.75}), 0.5)[0], 7424036u);
  // A popularity that is not 0 keeps a chance, however small.
  EXPECT_EQ(DrawingWeights(absl::Span<const double>({0.5, 1e-30}), 0)[1], 1u);
}

TEST(PopularityTest, DrawsHaveTheWantedShares) {
  // 64 experts as 1/sqrt(i), top-8, rho = 0.4, one request of 100,000 tokens.  The least popular has a share of 0.07:
  // 7,000 hits, each seen 1/(1 - 0.4) times, a standard deviation of 1.5 %; the fixed end of the race is off by up to 2
  // %.
  LayerPopularity zipf;
  zipf.mutable_zipf()->set_exponent(0.5);
  zipf.mutable_zipf()->set_by_id(true);
  RandomStream order(1, "test");
  const std::vector<double> wanted = InclusionProbabilities(zipf, 64, 8, order);
  LayerDraws draws(8, 0.4, {DrawingWeights(wanted, 0.4)}, RandomStream(1, "draws"));
  std::vector<double> share(64, 0.0);
  std::vector<uint16_t> ids(8);
  for (int t = 0; t < 100000; ++t) {
    draws.Draw(0, t == 0 ? nullptr : ids.data(), ids.data());
    for (uint16_t id : ids) share[id] += 1e-5;
  }
  for (int e = 0; e < 64; ++e) EXPECT_NEAR(share[e] / wanted[e], 1, 0.05) << e;
}

}  // namespace
}  // namespace epsim
