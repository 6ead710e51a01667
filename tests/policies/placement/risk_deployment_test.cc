#include "policies/placement/risk_deployment.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::vector<int> Ids(const std::vector<LogicalExpert>& experts) {
  std::vector<int> ids;
  for (LogicalExpert expert : experts) ids.push_back(static_cast<int>(expert));
  return ids;
}

std::vector<LogicalExpert> Experts(const std::vector<int>& ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return experts;
}

std::vector<int> Deployed(int experts, const std::vector<double>& load, const std::vector<int32_t>& replicas, int ranks,
                          double z = 0.674) {
  return Ids(DeployByRisk(LoadStatistics(LoadSamples(experts, load)), replicas, ranks, z));
}

// Expert 0: 1 2 6, mean 3, deviations -2 -1 3, variance (4 + 1 + 9) / 2.  Expert 1: 5 5 2, mean 4, 1 1 -2, (1 + 1 + 4)
// / 2. Covariance (-2 - 1 - 6) / 2.
TEST(LoadStatistics, AreThoseOfASample) {
  const LoadStatistics statistics(LoadSamples(2, {1, 2, 6, 5, 5, 2}));
  EXPECT_THAT(statistics.mean, ElementsAre(3, 4));
  EXPECT_THAT(statistics.covariance, ElementsAre(7, -4.5, -4.5, 3));
  EXPECT_DOUBLE_EQ(statistics.Risk(0, 0.674), 3 + 0.674 * std::sqrt(7.0));
  EXPECT_EQ(statistics.Risk(1, 0), 4);
}

TEST(LoadStatistics, OneSampleDoesNotVary) {
  EXPECT_THAT(LoadStatistics(LoadSamples(2, {1, 5})).covariance, ElementsAre(0, 0, 0, 0));
}

// Without spread: 6 3 3 2 2 2 on three ranks of two: 6 -> 0, 3 -> 1, 3 -> 2, 2 -> 1, 2 -> 2 (3 < 5), 2 -> 0.
TEST(DeployByRisk, DealsTheLargestFirstToTheRankWithTheLeast) {
  EXPECT_THAT(Deployed(6, {2, 3, 6, 2, 3, 2}, {1, 1, 1, 1, 1, 1}, 3), ElementsAre(2, 5, 1, 0, 4, 3));
}

// Two replicas of expert 0, 3 each, on different ranks; then 2 -> 0, 1 -> 1.
TEST(DeployByRisk, DividesAnExpertBetweenItsReplicas) {
  EXPECT_THAT(Deployed(3, {6, 1, 2}, {2, 1, 1}, 2), ElementsAre(0, 2, 0, 1));
}

// All have mean 10 and deviate by 2; 0 and 2 together, 1 and 3 together, the pairs against each other.  0 -> rank 0, 1
// -> rank 1 (empty).  Expert 2 makes 20 + z * sqrt(8 + 8 + 16) with 0, 20 + z * sqrt(8 + 8 - 16) with 1: rank 1.  With
// z = 0 both are 20, and the lowest rank gets it.
TEST(DeployByRisk, KeepsApartWhatIsHotTogether) {
  const std::vector<double> load = {12, 8, 8, 12, 12, 8, 8, 12};
  EXPECT_THAT(Deployed(4, load, {1, 1, 1, 1}, 2), ElementsAre(0, 3, 1, 2));
  EXPECT_THAT(Deployed(4, load, {1, 1, 1, 1}, 2, 0), ElementsAre(0, 2, 1, 3));
}

// Expert 1 has the lower mean but varies: 9 + 0.674 * sqrt(18) = 11.9 comes before 10.
TEST(DeployByRisk, OrdersByRiskNotByMean) {
  EXPECT_THAT(Deployed(2, {10, 10, 6, 12}, {1, 1}, 2), ElementsAre(1, 0));
  EXPECT_THAT(Deployed(2, {10, 10, 6, 12}, {1, 1}, 2, 0), ElementsAre(0, 1));
}

// 10 -> rank 0; three times 1 -> rank 1, which is full.  Expert 4 has a replica on rank 0 and one left: expert 1, the
// first of three alike, moves over.
TEST(DeployByRisk, MakesRoomRatherThanHaveAnExpertTwiceOnARank) {
  EXPECT_THAT(Deployed(5, {10, 1, 1, 1, 1}, {1, 1, 1, 1, 2}, 2), ElementsAre(0, 4, 1, 4, 2, 3));
}

TEST(DeployByRisk, RepeatsAnExpertOnARankWhereItHasMoreReplicasThanRanks) {
  EXPECT_THAT(Deployed(1, {5}, {4}, 2), ElementsAre(0, 0, 0, 0));
  EXPECT_THAT(Deployed(2, {9, 1}, {3, 1}, 2), ElementsAre(0, 0, 0, 1));
}

// Whatever the counts, each expert is there as often as asked, and never twice on a rank if it could be otherwise.
TEST(DeployByRisk, PutsNoExpertTwiceOnARank) {
  RandomStream random(1, "risk_deployment_test");
  int tight = 0;
  for (int trial = 0; trial < 400; ++trial) {
    const int ranks = 2 + static_cast<int>(random.Below(6)), width = 1 + static_cast<int>(random.Below(5));
    std::vector<int32_t> replicas;
    for (int left = ranks * width; left > 0;) {
      replicas.push_back(1 + static_cast<int32_t>(random.Below(std::min(left, ranks))));
      left -= replicas.back();
    }
    const int experts = static_cast<int>(replicas.size()), samples = 1 + static_cast<int>(random.Below(4));
    std::vector<double> load(experts * samples);
    for (double& l : load) l = static_cast<double>(random.Below(1000) >> random.Below(10));
    const std::vector<int> deployed = Deployed(experts, load, replicas, ranks);
    ASSERT_EQ(deployed.size(), static_cast<size_t>(ranks * width));
    for (int expert = 0; expert < experts; ++expert) {
      ASSERT_EQ(std::count(deployed.begin(), deployed.end(), expert), replicas[expert]);
      tight += replicas[expert] == ranks;
    }
    for (int rank = 0; rank < ranks; ++rank) {
      const std::set<int> distinct(&deployed[rank * width], &deployed[rank * width] + width);
      ASSERT_EQ(distinct.size(), static_cast<size_t>(width)) << "trial " << trial << ", rank " << rank;
    }
  }
  EXPECT_GT(tight, 100);  // Experts that must be on every rank.
}

// Loads 3 1 and 2 2 on two ranks: (3 * 2 + 0.01) / (4 + 0.01) and (2 * 2 + 0.01) / (4 + 0.01).
TEST(PeakToAverage, IsTheMeanOverSamples) {
  const LoadSamples samples(2, {3, 2, 1, 2});
  EXPECT_DOUBLE_EQ(PeakToAverage(samples, Experts({0, 1}), 2), (6.01 / 4.01 + 1) / 2);
  // Expert 0 on both ranks, 1.5 and 1 each; the sample's peak is 1.5 + 1, 1 + 2.
  EXPECT_DOUBLE_EQ(PeakToAverage(samples, Experts({0, 1, 0, -1}), 2), (5.01 / 4.01 + 6.01 / 4.01) / 2);
}

TEST(PeakToAverage, OfNoLoadIsOne) { EXPECT_EQ(PeakToAverage(LoadSamples(2, {0, 0}), Experts({0, 1}), 2), 1); }

}  // namespace
}  // namespace epsim
