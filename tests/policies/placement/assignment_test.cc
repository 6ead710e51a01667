#include "policies/placement/assignment.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

int64_t Cost(const std::vector<int64_t>& cost, const std::vector<int>& job_of_worker) {
  int64_t sum = 0;
  for (size_t worker = 0; worker < job_of_worker.size(); ++worker) {
    sum += cost[worker * job_of_worker.size() + job_of_worker[worker]];
  }
  return sum;
}

bool IsPermutation(std::vector<int> jobs) {
  std::sort(jobs.begin(), jobs.end());
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (jobs[i] != static_cast<int>(i)) return false;
  }
  return true;
}

// Each worker's best is job 0.  0 -> 0 (1), 1 -> 2 (3), 2 -> 1 (3): 7.  Worker 0 on another job costs 4 more, for at
// most 2 less elsewhere; 1 -> 1, 2 -> 2 instead costs 1 + 4 + 6 = 11.
TEST(LeastCostAssignment, LooksBeyondEachWorkersBest) {
  EXPECT_THAT(LeastCostAssignment({1, 5, 5,  //
                                   2, 4, 3,  //
                                   1, 3, 6},
                                  3),
              ElementsAre(0, 2, 1));
}

// The last worker to join pushes all others on by one: the only pairing without a 9.
TEST(LeastCostAssignment, FollowsALongChainOfReassignments) {
  EXPECT_THAT(LeastCostAssignment({0, 1, 9, 9,  //
                                   9, 0, 1, 9,  //
                                   9, 9, 0, 1,  //
                                   0, 9, 9, 9},
                                  4),
              ElementsAre(1, 2, 3, 0));
}

TEST(LeastCostAssignment, OfNoneAndOfOne) {
  EXPECT_THAT(LeastCostAssignment({}, 0), IsEmpty());
  EXPECT_THAT(LeastCostAssignment({-7}, 1), ElementsAre(0));
}

// Against all permutations; few distinct costs (many ties) and many, of both signs.
TEST(LeastCostAssignment, EqualsTheBestOfAllPermutations) {
  RandomStream random(1, "assignment_test");
  for (int n = 1; n <= 6; ++n) {
    for (int trial = 0; trial < 200; ++trial) {
      const uint64_t range = trial % 2 == 0 ? 4 : 1000;
      std::vector<int64_t> cost(n * n);
      for (int64_t& c : cost) c = static_cast<int64_t>(random.Below(range)) - static_cast<int64_t>(range / 2);
      const std::vector<int> found = LeastCostAssignment(cost, n);
      ASSERT_TRUE(IsPermutation(found));
      std::vector<int> jobs(n);
      std::iota(jobs.begin(), jobs.end(), 0);
      int64_t best = std::numeric_limits<int64_t>::max();
      do {
        best = std::min(best, Cost(cost, jobs));
      } while (std::next_permutation(jobs.begin(), jobs.end()));
      ASSERT_EQ(Cost(cost, found), best) << n << " workers, trial " << trial;
    }
  }
}

// Costs a[w] + b[j] + (j is not the job hidden for w): any pairing costs the sums of a and b, and 1 for each worker
// that misses its hidden job.  So the hidden one is the only best.
TEST(LeastCostAssignment, FindsTheHiddenPairingOf150) {
  constexpr int kSize = 150;
  RandomStream random(2, "assignment_test");
  std::vector<int> hidden(kSize);
  std::iota(hidden.begin(), hidden.end(), 0);
  for (int i = kSize - 1; i > 0; --i) std::swap(hidden[i], hidden[random.Below(i + 1)]);
  std::vector<int64_t> of_worker(kSize), of_job(kSize), cost;
  for (int64_t& a : of_worker) a = static_cast<int64_t>(random.Below(1'000'000));
  for (int64_t& b : of_job) b = static_cast<int64_t>(random.Below(1'000'000)) - 500'000;
  for (int worker = 0; worker < kSize; ++worker) {
    for (int job = 0; job < kSize; ++job) {
      cost.push_back(of_worker[worker] + of_job[job] + (job == hidden[worker] ? 0 : 1));
    }
  }
  EXPECT_EQ(LeastCostAssignment(cost, kSize), hidden);
}

}  // namespace
}  // namespace epsim
