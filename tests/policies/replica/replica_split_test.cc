#include "policies/replica/replica_split.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::vector<LogicalExpert> Experts(const std::vector<int>& experts) {
  std::vector<LogicalExpert> result;
  for (int expert : experts) result.push_back(LogicalExpert(expert));
  return result;
}

int64_t Maximum(const ReplicaSplit& split) { return *std::max_element(split.load().begin(), split.load().end()); }

ReplicaSplit LeastLoaded(const Placement& placement, const std::vector<int64_t>& pairs) {
  ReplicaSplit split(placement, Layer(0), pairs);
  split.DealToLeastLoaded();
  return split;
}

ReplicaSplit Optimal(const Placement& placement, const std::vector<int64_t>& pairs) {
  ReplicaSplit split = LeastLoaded(placement, pairs);
  split.LowerMaximum();
  return split;
}

// Every pair is on a rank of its expert, and loads are what the parts add up to.
void ExpectConsistent(const ReplicaSplit& split, const Placement& placement, const std::vector<int64_t>& pairs) {
  const PlacementShape& shape = placement.shape();
  std::vector<int64_t> load(shape.ranks);
  std::vector<uint32_t> weight(shape.slots, 1), weight_of_parts(shape.slots);
  for (int e = 0; e < shape.experts; ++e) {
    int64_t sum = 0;
    for (const ReplicaSplit::Part& part : split.parts(e)) {
      ASSERT_GE(part.pairs, 0);
      ASSERT_EQ(placement.experts_of_slots(Layer(0))[part.slot], LogicalExpert(e));
      ASSERT_EQ(shape.rank_of(Slot(part.slot)), Rank(part.rank));
      load[part.rank] += part.pairs;
      weight_of_parts[part.slot] = static_cast<uint32_t>(part.pairs);
      sum += part.pairs;
    }
    ASSERT_EQ(sum, pairs[e]) << e;
  }
  ASSERT_EQ(std::vector<int64_t>(split.load().begin(), split.load().end()), load);
  split.WriteWeights(absl::MakeSpan(weight));
  ASSERT_EQ(weight, weight_of_parts);
}

struct Case {
  Placement placement;
  std::vector<int64_t> pairs;
};

// Placements of 2 to 9 ranks with up to 3 slots a rank more than needed, some ranks failed, and skewed counts.
std::vector<Case> DrawCases(int count) {
  std::vector<Case> cases;
  RandomStream random(4, "replica_split");
  while (static_cast<int>(cases.size()) < count) {
    PlacementShape shape{.layers = 1};
    shape.ranks = 2 + static_cast<int>(random.Below(8));
    shape.experts = 1 + static_cast<int>(random.Below(12));
    shape.slots = ((shape.experts + shape.ranks - 1) / shape.ranks + static_cast<int>(random.Below(4))) * shape.ranks;
    Case drawn{DrawPlacement(shape, &random), {}};
    if (random.Below(4) == 0) {  // The first rank fails, if every expert is elsewhere too.
      std::vector<LogicalExpert> experts(drawn.placement.experts_of_slots(Layer(0)).begin(),
                                         drawn.placement.experts_of_slots(Layer(0)).end());
      std::fill(experts.begin(), experts.begin() + shape.slots_per_rank(), kNoExpert);
      bool all = true;
      for (int e = 0; e < shape.experts; ++e) {
        all = all && std::find(experts.begin(), experts.end(), LogicalExpert(e)) != experts.end();
      }
      if (all) drawn.placement = Placement(shape, experts);
    }
    for (int e = 0; e < shape.experts; ++e) {
      const uint64_t most = uint64_t{1} << random.Below(14);
      drawn.pairs.push_back(static_cast<int64_t>(random.Below(most)));
    }
    cases.push_back(std::move(drawn));
  }
  return cases;
}

// Experts 0 and 1 on ranks 0 and 1; expert 2 on rank 2 only, with 6 pairs; expert 3 on ranks 1 and 2.
// Expert 0 (10 pairs) goes 5 and 5.  Then expert 1 (4): 2 and 2, to loads of 7 and 7.  Then expert 3 (3): rank 2 has 6
// and gets the first; at 7 each the next is rank 1's, which is first in order, then rank 2's.
TEST(ReplicaSplit, DealsTheMostChosenFirstAndPairByPair) {
  const Placement placement({.layers = 1, .experts = 4, .slots = 9, .ranks = 3}, Experts({0, 1, 0, 0, 1, 3, 2, 3, 2}));
  const ReplicaSplit split = LeastLoaded(placement, {10, 4, 6, 3});
  EXPECT_THAT(split.load(), ElementsAre(7, 8, 8));
  EXPECT_THAT(split.replicated(), ElementsAre(0, 1, 3));
  EXPECT_EQ(split.parts(3)[0].pairs, 1);
  EXPECT_EQ(split.parts(3)[1].pairs, 2);
  // Expert 0 lies on rank 0 twice, of which the first counts, and expert 2 on rank 2 alone.
  EXPECT_EQ(split.parts(0).size(), 2u);
  EXPECT_EQ(split.parts(0)[0].slot, 0);
  EXPECT_EQ(split.parts(2).size(), 1u);
}

// What DealToLeastLoaded says, pair by pair.
TEST(ReplicaSplit, IsWhatDealingPairByPairGives) {
  for (const Case& c : DrawCases(500)) {
    const ReplicaSplit split = LeastLoaded(c.placement, c.pairs);
    ExpectConsistent(split, c.placement, c.pairs);
    std::vector<int64_t> load(c.placement.shape().ranks);
    std::vector<int> order;
    for (int e = 0; e < c.placement.shape().experts; ++e) {
      if (split.parts(e).size() == 1) {
        load[split.parts(e)[0].rank] += c.pairs[e];
      } else if (c.pairs[e] > 0) {
        order.push_back(e);
      }
    }
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return c.pairs[a] > c.pairs[b]; });
    for (const int e : order) {
      std::vector<int64_t> dealt(split.parts(e).size());
      for (int64_t pair = 0; pair < c.pairs[e]; ++pair) {
        size_t best = 0;
        for (size_t p = 1; p < dealt.size(); ++p) {
          if (load[split.parts(e)[p].rank] < load[split.parts(e)[best].rank]) best = p;
        }
        ++dealt[best];
        ++load[split.parts(e)[best].rank];
      }
      for (size_t p = 0; p < dealt.size(); ++p) ASSERT_EQ(split.parts(e)[p].pairs, dealt[p]) << e << " " << p;
    }
  }
}

// The least t with  sum over the ranks of e of x = pairs of e,  sum over the experts on r of x <= t,  x >= 0: a dense
// tableau simplex (Bland's rule) over the x, t and the slacks, started where all of an expert is on its first rank.
double LeastMaximumBySimplex(const ReplicaSplit& split, const std::vector<int64_t>& pairs) {
  struct Variable {
    size_t expert, rank;
  };
  std::vector<Variable> x;
  for (size_t e = 0; e < pairs.size(); ++e) {
    for (const ReplicaSplit::Part& part : split.parts(e)) x.push_back({e, part.rank});
  }
  // Columns: x, t, slacks, right-hand side.  Rows: experts, ranks (x of the rank - t + slack = 0), then the objective.
  const size_t experts = pairs.size(), ranks = split.load().size(), t = x.size(), columns = t + 1 + ranks;
  std::vector<std::vector<double>> row(experts + ranks + 1, std::vector<double>(columns + 1));
  for (size_t e = 0; e < experts; ++e) row[e][columns] = static_cast<double>(pairs[e]);
  for (size_t i = 0; i < x.size(); ++i) row[x[i].expert][i] = row[experts + x[i].rank][i] = 1;
  for (size_t r = 0; r < ranks; ++r) {
    row[experts + r][t] = -1;
    row[experts + r][t + 1 + r] = 1;
  }
  row[experts + ranks][t] = 1;  // Minimised.
  std::vector<size_t> basic(experts + ranks);
  const auto pivot = [&](size_t r, size_t column) {
    const double by = row[r][column];
    for (double& value : row[r]) value /= by;
    for (size_t i = 0; i < row.size(); ++i) {
      if (i == r || row[i][column] == 0) continue;
      const double times = row[i][column];
      for (size_t j = 0; j <= columns; ++j) row[i][j] -= times * row[r][j];
    }
    basic[r] = column;
  };
  std::vector<double> load(ranks);
  for (size_t i = x.size(); i-- > 0;) {
    if (i == 0 || x[i - 1].expert != x[i].expert) {
      pivot(x[i].expert, i);
      load[x[i].rank] += static_cast<double>(pairs[x[i].expert]);
    }
  }
  for (size_t r = 0; r < ranks; ++r) basic[experts + r] = t + 1 + r;
  // t enters for the slack of the most loaded rank: then all slacks are load differences, and not negative.
  pivot(experts + (std::max_element(load.begin(), load.end()) - load.begin()), t);
  while (true) {
    size_t entering = 0;
    while (entering < columns && row.back()[entering] > -1e-9) ++entering;
    if (entering == columns) return -row.back()[columns];
    size_t leaving = row.size();
    for (size_t r = 0; r + 1 < row.size(); ++r) {
      if (row[r][entering] < 1e-9) continue;
      const auto ratio = [&](size_t i) { return row[i][columns] / row[i][entering]; };
      if (leaving == row.size() || ratio(r) < ratio(leaving) - 1e-12 ||
          (ratio(r) <= ratio(leaving) + 1e-12 && basic[r] < basic[leaving])) {
        leaving = r;
      }
    }
    EXPECT_LT(leaving, row.size());
    pivot(leaving, entering);
  }
}

// The linear program's optimum, rounded up, by another method.
TEST(ReplicaSplit, LowersTheMaximumToTheOptimumOfTheLinearProgram) {
  int better = 0;
  for (const Case& c : DrawCases(500)) {
    const ReplicaSplit split = Optimal(c.placement, c.pairs);
    ExpectConsistent(split, c.placement, c.pairs);
    const double optimum = LeastMaximumBySimplex(split, c.pairs);
    ASSERT_EQ(Maximum(split), static_cast<int64_t>(std::ceil(optimum - 1e-6)));
    better += Maximum(split) < Maximum(LeastLoaded(c.placement, c.pairs));
  }
  EXPECT_GT(better, 50);  // The greedy deal would not have passed.
}

// max over sets S of ranks of ceil((pairs of the experts on ranks of S only) / |S|).
TEST(ReplicaSplit, LowersTheMaximumToWhatTheTightestSetOfRanksAllows) {
  for (const Case& c : DrawCases(500)) {
    const ReplicaSplit split = Optimal(c.placement, c.pairs);
    int64_t bound = 0;
    for (uint32_t set = 1; set < uint32_t{1} << c.placement.shape().ranks; ++set) {
      int64_t inside = 0;
      for (size_t e = 0; e < c.pairs.size(); ++e) {
        const absl::Span<const ReplicaSplit::Part> parts = split.parts(e);
        if (std::all_of(parts.begin(), parts.end(), [set](const auto& part) { return set >> part.rank & 1; })) {
          inside += c.pairs[e];
        }
      }
      const int64_t size = __builtin_popcount(set);
      bound = std::max(bound, (inside + size - 1) / size);
    }
    ASSERT_EQ(Maximum(split), bound);
  }
}

// A chain of 40 ranks, expert i on ranks i and i + 1, 40 pairs of each.  Expert 0 with 1,599 pairs fills its own two
// ranks to 800 and 799, whatever the others do.  With 79 pairs there are 79 + 38 * 40 = 1,599 in all, 39.975 a rank:
// 40 is reached only if every expert hands some on to the next rank.
TEST(ReplicaSplit, HandsLoadOnAlongAChain) {
  constexpr int kRanks = 40;
  std::vector<int> slots;
  for (int rank = 0; rank < kRanks; ++rank) {
    slots.push_back(std::max(0, rank - 1));       // Expert rank - 1.
    slots.push_back(std::min(rank, kRanks - 2));  // Expert rank.
  }
  const Placement placement({.layers = 1, .experts = kRanks - 1, .slots = 2 * kRanks, .ranks = kRanks}, Experts(slots));
  std::vector<int64_t> pairs(kRanks - 1, 40);
  pairs[0] = 41 * 39;
  EXPECT_EQ(Maximum(Optimal(placement, pairs)), 800);
  pairs[0] = 79;
  EXPECT_EQ(Maximum(Optimal(placement, pairs)), 40);
}

// Rank 2 is the only one that must have 8.  Expert 0 (10 pairs) is dealt 5 and 5 to ranks 0 and 1; then expert 1 (8
// pairs) finds ranks 0 and 2 with 5 and 8: 11 and 10.  To be dealt by nearest rank could by luck give 10, 8 and 8; the
// least maximum is ceil(26 / 3) = 9.
TEST(ReplicaSplit, LeastLoadedIsNotOptimalAndNotAlwaysBetterThanAFixedChoice) {
  const Placement placement({.layers = 1, .experts = 3, .slots = 6, .ranks = 3}, Experts({0, 1, 0, 0, 2, 1}));
  EXPECT_THAT(LeastLoaded(placement, {10, 8, 8}).load(), ElementsAre(11, 5, 10));
  EXPECT_EQ(Maximum(Optimal(placement, {10, 8, 8})), 9);
}

TEST(ReplicaSplit, LeavesAloneWhatHasNoReplicasOrNoPairs) {
  const Placement placement({.layers = 1, .experts = 2, .slots = 4, .ranks = 2}, Experts({0, 1, 1, 1}));
  EXPECT_THAT(Optimal(placement, {5, 0}).load(), ElementsAre(5, 0));
  EXPECT_THAT(Optimal(placement, {0, 0}).load(), ElementsAre(0, 0));
  const Placement single({.layers = 1, .experts = 2, .slots = 2, .ranks = 2}, Experts({1, 0}));
  EXPECT_THAT(Optimal(single, {9, 3}).load(), ElementsAre(3, 9));
}

}  // namespace
}  // namespace epsim
