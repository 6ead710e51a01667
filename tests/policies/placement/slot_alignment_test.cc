#include "policies/placement/slot_alignment.h"

#include <algorithm>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::vector<LogicalExpert> Experts(const std::vector<int>& ids) {
  std::vector<LogicalExpert> experts;
  for (int id : ids) experts.push_back(LogicalExpert(id));
  return experts;
}

std::vector<int> Ids(const std::vector<LogicalExpert>& experts) {
  std::vector<int> ids;
  for (LogicalExpert expert : experts) ids.push_back(static_cast<int>(expert));
  return ids;
}

std::vector<int> Aligned(const std::vector<int>& before, int slots_per_rank, const std::vector<int>& after) {
  std::vector<LogicalExpert> experts = Experts(after);
  AlignSlots(Experts(before), slots_per_rank, absl::MakeSpan(experts));
  return Ids(experts);
}

std::vector<int> Matched(const std::vector<int>& before, int slots_per_rank, const std::vector<int>& after) {
  std::vector<LogicalExpert> experts = Experts(after);
  MatchRanks(Experts(before), slots_per_rank, absl::MakeSpan(experts));
  return Ids(experts);
}

int Moves(const std::vector<int>& before, const std::vector<int>& after) {
  int moves = 0;
  for (size_t slot = 0; slot < before.size(); ++slot) moves += before[slot] != after[slot];
  return moves;
}

// 7 and 5 stay in their slots of the first rank, and 9 takes the one that 6 left.  On the second rank nothing stays,
// and what was on the first does not count.
TEST(AlignSlots, ThoseThatStayKeepTheirSlots) {
  EXPECT_THAT(Aligned({5, 6, 7, 1, 2, 3}, 3, {7, 9, 5, 6, 5, 4}), ElementsAre(5, 9, 7, 6, 5, 4));
}

// Of three copies two have an old slot; the third takes the first free one.  Empty slots are free.
TEST(AlignSlots, KeepsAsManyCopiesAsThereWere) {
  EXPECT_THAT(Aligned({8, 4, -1, 4}, 4, {4, 3, 4, 4}), ElementsAre(3, 4, 4, 4));
}

// The two ranks have swapped places: nothing has to move.
TEST(MatchRanks, GivesRowsBackToTheRanksThatHadThem) {
  EXPECT_THAT(Matched({0, 1, 2, 3}, 2, {3, 2, 1, 0}), ElementsAre(0, 1, 2, 3));
}

// Row {0, 1} suits ranks 0 (both) and 1 (one); row {0, 4} suits rank 0 only (one); row {2, 5} rank 2 only (one).  Rank
// 0 takes {0, 1}: 0 + 2 + 1 = 3 moves.  Were {0, 4} on rank 0 and {0, 1} on rank 1, also 1 + 1 + 1 = 3; all others
// more.
TEST(MatchRanks, WeighsAllRanksTogether) {
  const std::vector<int> before = {0, 1, 1, 3, 2, 6}, after = {2, 5, 0, 4, 0, 1};
  EXPECT_EQ(Moves(before, Matched(before, 2, after)), 3);
}

// Against every permutation of the rows, each aligned; and on average far better than a permutation drawn at random.
TEST(MatchRanks, MovesAsFewAsTheBestOfAllPermutations) {
  RandomStream random(1, "slot_alignment_test");
  int64_t matched_moves = 0, random_moves = 0;
  for (int trial = 0; trial < 300; ++trial) {
    const int ranks = 2 + static_cast<int>(random.Below(4)), width = 1 + static_cast<int>(random.Below(4));
    const int experts = 1 + static_cast<int>(random.Below(ranks * width));
    std::vector<int> before(ranks * width), after(ranks * width);
    for (int& expert : before) expert = static_cast<int>(random.Below(experts + 1)) - 1;  // Some slots are empty.
    for (int& expert : after) expert = static_cast<int>(random.Below(experts));
    const int moves = Moves(before, Matched(before, width, after));

    std::vector<int> order(ranks);
    std::iota(order.begin(), order.end(), 0);
    int best = ranks * width;
    int64_t sum = 0, permutations = 0;
    do {
      std::vector<int> permuted;
      for (int row : order) permuted.insert(permuted.end(), &after[row * width], &after[row * width] + width);
      const int tried = Moves(before, Aligned(before, width, permuted));
      best = std::min(best, tried);
      sum += tried;
      ++permutations;
    } while (std::next_permutation(order.begin(), order.end()));
    ASSERT_EQ(moves, best) << "trial " << trial;
    matched_moves += moves;
    random_moves += sum / permutations;
  }
  EXPECT_LT(matched_moves, 0.85 * static_cast<double>(random_moves));
}

}  // namespace
}  // namespace epsim
