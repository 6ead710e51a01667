#include "policies/placement/balanced_packing.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;

// Two packs of three: 5 -> 0; 4 -> 1; 3 -> 1 (7); 2 -> 0 (7); 1 -> 0, the lower, which is full; 0 -> 1.
TEST(BalancedPacking, GivesTheHeaviestToTheLightestPackThatIsNotFull) {
  BalancedPacking packing;
  const float weight[] = {1, 3, 5, 2, 4, 0};
  const double same[] = {1, 3, 5, 2, 4, 0};
  EXPECT_THAT(packing.Pack(weight, 2), ElementsAre(2, 4, 0, 1, 3, 5));
  EXPECT_THAT(packing.Pack(same, 2), ElementsAre(2, 4, 0, 1, 3, 5));
}

// Equal weights: the lower index first; equal packs: the lower first; a full pack gets no more though it is the
// lightest.
TEST(BalancedPacking, BreaksTiesByTheLowerIndex) {
  BalancedPacking packing;
  const float equal[] = {7, 7, 7, 7};
  EXPECT_THAT(packing.Pack(equal, 2), ElementsAre(0, 2, 1, 3));
  const double skewed[] = {9, 1, 1, 1};
  EXPECT_THAT(packing.Pack(skewed, 2), ElementsAre(0, 2, 3, 1));
  const float one_each[] = {1, 3, 2};
  EXPECT_THAT(packing.Pack(one_each, 3), ElementsAre(2, 0, 1));  // Sorted also then.
}

// 2^24 + 1 is 2^24 in float32, so that the packs stay equal; in float64 the second is lighter.
TEST(BalancedPacking, AddsInTheTypeOfTheWeights) {
  BalancedPacking packing;
  const float in_float[] = {0x1p24f, 0x1p24f, 1, 0.5, 0.25, 0.125};
  const double in_double[] = {0x1p24, 0x1p24, 1, 0.5, 0.25, 0.125};
  EXPECT_THAT(packing.Pack(in_float, 2), ElementsAre(0, 3, 1, 2, 4, 5));
  EXPECT_THAT(packing.Pack(in_double, 2), ElementsAre(0, 3, 1, 4, 5, 2));
}

// The order of packing does not depend on how many items there are: one item a pack says in which order they came.
TEST(BalancedPacking, SortsStablyHoweverManyItems) {
  RandomStream random(1, "balanced_packing_test");
  BalancedPacking packing;
  for (size_t items : {1, 2, 15, 16, 17, 72, 127, 128, 129, 288}) {
    for (uint64_t values : {2, 10, 1 << 20}) {
      std::vector<float> weight(items);
      for (float& w : weight) w = static_cast<float>(random.Below(values)) / 8;
      std::vector<size_t> order(items), place(items);
      std::iota(order.begin(), order.end(), 0);
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return weight[a] > weight[b]; });
      for (size_t i = 0; i < items; ++i) place[order[i]] = i;
      EXPECT_THAT(packing.Pack(weight, items), testing::ElementsAreArray(place)) << items << " of " << values;
      const std::vector<double> same(weight.begin(), weight.end());
      EXPECT_THAT(packing.Pack(same, items), testing::ElementsAreArray(place)) << items << " of " << values;
    }
  }
}

}  // namespace
}  // namespace epsim
