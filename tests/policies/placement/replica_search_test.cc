#include "policies/placement/replica_search.h"

#include <cmath>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<int> Ids(const std::vector<LogicalExpert>& experts) {
  std::vector<int> ids;
  for (LogicalExpert expert : experts) ids.push_back(static_cast<int>(expert));
  return ids;
}

// 6 5 1: 6 -> 3, 5 -> 2.5, 3 -> 2, then 2.5 -> 5 / 3 before 2.  (2.5 > 2.)
TEST(MinMaxExtras, GivesToTheLargestRiskPerReplica) {
  EXPECT_THAT(MinMaxExtras({6, 5, 1}, 4, 9), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(MinMaxExtras({6, 5, 1}, 0, 9), IsEmpty());
}

TEST(MinMaxExtras, GivesToTheFirstOfEquals) { EXPECT_THAT(MinMaxExtras({2, 2, 0}, 3, 9), ElementsAre(0, 1, 0)); }

// Two replicas are the most while another has fewer; then 6 / 2 is the largest.
TEST(MinMaxExtras, GivesNoMoreThanTheMostWhileAnotherCanTakeThem) {
  EXPECT_THAT(MinMaxExtras({6, 1, 0}, 5, 2), ElementsAre(0, 1, 2, 0, 0));
  EXPECT_THAT(MinMaxExtras({6, 1}, 2, 1), ElementsAre(0, 0));
}

// Loads 6 5 1 on two ranks of two.  Min-max gives the fourth slot to 6: 3 5 3 1 are dealt 5 + 3, 3 + 1: 8.  Given to
// the cooler segment, 1, it makes 6 + 0.5 and 5 + 0.5: 6.5.
TEST(SearchReplicas, FindsASplitThatDeploysBetterThanMinMax) {
  const LoadSamples samples(3, {6, 5, 1});
  const SearchedDeployment min_max = SearchReplicas(samples, 4, 2, {.depth = 1});
  EXPECT_THAT(Ids(min_max.experts_of_slots), ElementsAre(1, 0, 0, 2));
  EXPECT_DOUBLE_EQ(min_max.peak_to_average, 16.01 / 12.01);
  EXPECT_THAT(Ids(SearchReplicas(samples, 4, 2, {.depth = 2, .width = 0}).experts_of_slots), ElementsAre(1, 0, 0, 2));

  const SearchedDeployment searched = SearchReplicas(samples, 4, 2, {.depth = 2, .width = 1});
  EXPECT_THAT(Ids(searched.experts_of_slots), ElementsAre(0, 2, 1, 2));
  EXPECT_DOUBLE_EQ(searched.peak_to_average, 13.01 / 12.01);
}

// The first split tried is that of min-max, so no search ends up worse; a deeper or wider one mostly does better.
TEST(SearchReplicas, IsNeverWorseThanMinMax) {
  RandomStream random(1, "replica_search_test");
  int better = 0;
  for (int trial = 0; trial < 100; ++trial) {
    const int experts = 1 + static_cast<int>(random.Below(24)), ranks = 1 + static_cast<int>(random.Below(6));
    const int slots = (experts + ranks - 1) / ranks * ranks + ranks * static_cast<int>(random.Below(3));
    std::vector<double> load(experts * (1 + random.Below(5)));
    for (double& l : load) l = std::pow(1 + random.Below(100), -0.8) * 1e4;
    const LoadSamples samples(experts, load);
    const double min_max = SearchReplicas(samples, slots, ranks, {.depth = 1}).peak_to_average;
    const double searched = SearchReplicas(samples, slots, ranks, {}).peak_to_average;
    ASSERT_LE(searched, min_max) << "trial " << trial;
    better += searched < min_max;
  }
  EXPECT_GT(better, 25);
}

// 3 experts on 2 ranks of 3: each may have 2 replicas, and every one has to.
TEST(SearchReplicas, PutsNoExpertTwiceOnARankWhereThatCanBe) {
  const SearchedDeployment deployed = SearchReplicas(LoadSamples(3, {100, 1, 1}), 6, 2, {});
  EXPECT_THAT(Ids(deployed.experts_of_slots), ElementsAre(0, 1, 2, 0, 1, 2));
}

}  // namespace
}  // namespace epsim
