// Question: does the simulation agree with what is known, and with itself on any number of threads?
#include "models/load/sampled_max_load.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

SampledLoad Sample(const LoadCase& load, const RoutingLaw& law = {}, SamplingOptions options = {}) {
  if (options.samples == 0) options.samples = 100'000;
  const absl::StatusOr<SampledLoad> sampled = SampleMaxLoad(load, law, options);
  EXPECT_TRUE(sampled.ok()) << sampled.status();
  return sampled.value_or(SampledLoad{});
}

void ExpectWithin(const SampledMean& estimate, double expected, double errors = 4) {
  EXPECT_NEAR(estimate.mean, expected, errors * estimate.standard_error + 1e-12);
}

// The expectation of `most` active experts where one token after another chooses from left to right: next(taken) gives
// the probability of each next expert.
using Next = std::function<std::vector<double>(const std::vector<int>& taken)>;
void ForEachToken(int top_k, const Next& next, std::vector<int>* taken, double p,
                  const std::function<void(const std::vector<int>&, double)>& visit) {
  if (static_cast<int>(taken->size()) == top_k) return visit(*taken, p);
  const std::vector<double> chance = next(*taken);
  for (size_t expert = 0; expert < chance.size(); ++expert) {
    if (chance[expert] == 0) continue;
    taken->push_back(static_cast<int>(expert));
    ForEachToken(top_k, next, taken, p * chance[expert], visit);
    taken->pop_back();
  }
}
double ByEnumeration(const LoadCase& load, const Next& next) {
  std::vector<double> chance_of_set(size_t{1} << load.experts);
  std::vector<int> taken;
  ForEachToken(load.top_k, next, &taken, 1, [&](const std::vector<int>& experts, double p) {
    size_t set = 0;
    for (const int expert : experts) set |= size_t{1} << expert;
    chance_of_set[set] += p;
  });
  EXPECT_NEAR(std::accumulate(chance_of_set.begin(), chance_of_set.end(), 0.0), 1, 1e-12);
  std::vector<double> active(chance_of_set.size());
  active[0] = 1;
  for (int64_t token = 0; token < load.batch; ++token) {
    std::vector<double> then(active.size());
    for (size_t a = 0; a < active.size(); ++a) {
      for (size_t b = 0; b < active.size(); ++b) then[a | b] += active[a] * chance_of_set[b];
    }
    active = then;
  }
  double mean = 0;
  for (size_t set = 0; set < active.size(); ++set) {
    int most = 0, expert = 0;
    for (int chip = 0; chip < load.chips; ++chip) {
      int here = 0;
      for (int i = 0; i < ExpertsOfChip(load, chip); ++i) here += set >> expert++ & 1;
      most = std::max(most, here);
    }
    mean += most * active[set];
  }
  return mean;
}

// In proportion to the weights of those that `open` lets through and are not taken.
std::vector<double> InProportion(const std::vector<double>& weights, const std::vector<int>& taken,
                                 const std::function<bool(int)>& open) {
  std::vector<double> chance = weights;
  for (size_t i = 0; i < chance.size(); ++i) {
    const int expert = static_cast<int>(i);
    if (std::find(taken.begin(), taken.end(), expert) != taken.end() || !open(expert)) chance[i] = 0;
  }
  const double sum = std::accumulate(chance.begin(), chance.end(), 0.0);
  for (double& p : chance) p /= sum;
  return chance;
}

const std::vector<double> kSkewed = {5, 1, 0, 2.5, 0.25, 1, 8, 3};

TEST(SampledMaxLoad, UniformAgreesWithTheExactMethod) {
  for (const LoadCase& load :
       {LoadCase{.batch = 4, .chips = 32}, LoadCase{.batch = 4, .chips = 1}, LoadCase{.batch = 64, .chips = 10},
        LoadCase{.batch = 9, .chips = 7, .experts = 60, .top_k = 4},
        LoadCase{.batch = 2, .chips = 3, .experts = 5, .top_k = 5},
        LoadCase{.batch = 3, .chips = 300, .experts = 100, .top_k = 99}}) {
    const SampledLoad sampled = Sample(load, {}, {.samples = load.batch * load.top_k > 100 ? 10'000 : 100'000});
    ExpectWithin(sampled.active_experts, ExactMaxExpertLoad(load).value());
    if (load.chips == 1) ExpectWithin(sampled.pairs, static_cast<double>(load.batch * load.top_k));
  }
}

TEST(SampledMaxLoad, PairsByHand) {
  // Two tokens of one expert each on two chips of one expert: both on one chip with probability 1/2: 1.5 on average.
  ExpectWithin(Sample({.batch = 2, .chips = 2, .experts = 2, .top_k = 1}).pairs, 1.5);
}

TEST(SampledMaxLoad, PopularExpertsAreDrawnOneAfterAnother) {
  const LoadCase load{.batch = 2, .chips = 3, .experts = 8, .top_k = 3};
  const double expected = ByEnumeration(
      load, [](const std::vector<int>& taken) { return InProportion(kSkewed, taken, [](int) { return true; }); });
  ExpectWithin(Sample(load, {.popularity = kSkewed}, {.samples = 400'000}).active_experts, expected);
  // To any scale.
  std::vector<double> large = kSkewed;
  for (double& popularity : large) popularity *= 1e307;
  ExpectWithin(Sample(load, {.popularity = large}).active_experts, expected);
}

// With so little popularity of all but one expert, nearly every draw is in vain, and the next is found by looking.
TEST(SampledMaxLoad, ExtremePopularityIsDrawnRight) {
  const std::vector<double> popularity = {1, 1e-12, 2e-12, 0, 1e-300, 1e-12};
  const LoadCase load{.batch = 2, .chips = 3, .experts = 6, .top_k = 2};
  const double expected = ByEnumeration(
      load, [&](const std::vector<int>& taken) { return InProportion(popularity, taken, [](int) { return true; }); });
  ExpectWithin(Sample(load, {.popularity = popularity}).active_experts, expected);
}

TEST(SampledMaxLoad, GroupsByTheirBestExpertOpenOneAfterAnother) {
  // Four groups of two; the third group to show up is closed.
  const LoadCase load{.batch = 2, .chips = 3, .experts = 8, .top_k = 3};
  for (const std::vector<double>& popularity : {std::vector<double>(8, 1.0), kSkewed}) {
    const double expected = ByEnumeration(load, [&](const std::vector<int>& taken) {
      std::vector<bool> open(4);
      for (const int expert : taken) open[expert / 2] = true;
      const bool full = std::count(open.begin(), open.end(), true) == 2;
      return InProportion(popularity, taken, [&](int expert) { return !full || open[expert / 2]; });
    });
    RoutingLaw law{.popularity = popularity, .groups = 4, .top_groups = 2, .rule = GroupRule::kBestExpert};
    if (popularity == kSkewed) {  // Group 1 holds an expert without popularity, so that 2 groups are sure to have 3.
      ASSERT_EQ(kSkewed[2], 0);
    } else {
      ExpectWithin(Sample(load, {.groups = 4, .top_groups = 2, .rule = GroupRule::kBestExpert}).active_experts,
                   expected);
    }
    ExpectWithin(Sample(load, law, {.samples = 300'000}).active_experts, expected);
  }
}

TEST(SampledMaxLoad, OneGroupOfTwoIsHalfTheExperts) {
  // Independent groups of equal popularity: a fair coin, then a uniform choice within.  One token: its experts lie on
  // one of two chips, as the groups do.
  const LoadCase one{.batch = 1, .chips = 2, .experts = 8, .top_k = 3};
  for (const GroupRule rule : {GroupRule::kBestTwo, GroupRule::kBestExpert, GroupRule::kIndependent}) {
    ExpectWithin(Sample(one, {.groups = 2, .top_groups = 1, .rule = rule}).active_experts, 3);
  }
  // Two tokens in the same group (1/2) have 4 (1 - (1/4)^2) = 3.75 active experts, in different groups 3.
  const LoadCase two{.batch = 2, .chips = 2, .experts = 8, .top_k = 3};
  for (const GroupRule rule : {GroupRule::kBestTwo, GroupRule::kBestExpert, GroupRule::kIndependent}) {
    ExpectWithin(Sample(two, {.groups = 2, .top_groups = 1, .rule = rule}).active_experts, (3.75 + 3) / 2);
  }
}

// The best group is drawn in proportion to its total popularity where its best expert or its own score decides.
TEST(SampledMaxLoad, PopularGroupsAreChosenInProportion) {
  // Groups of weight 3 and 1: two tokens in the same with 10/16.
  const std::vector<double> popularity = {2, 1, 0.5, 0.5};
  const LoadCase load{.batch = 2, .chips = 2, .experts = 4, .top_k = 2};
  // In the same group: 2 active; in different groups, 2 on each chip: 2.  So ask for one of two experts instead.
  const LoadCase one_each{.batch = 2, .chips = 2, .experts = 4, .top_k = 1};
  for (const GroupRule rule : {GroupRule::kBestExpert, GroupRule::kIndependent}) {
    const RoutingLaw law{.popularity = popularity, .groups = 2, .top_groups = 1, .rule = rule};
    ExpectWithin(Sample(load, law).active_experts, 2);
    // Both in group 0 (9/16) on different experts: 2 (2/3)(1/3) = 4/9; both in group 1 (1/16): 1/2.
    ExpectWithin(Sample(one_each, law).active_experts, 1 + 9.0 / 16 * 4 / 9 + 1.0 / 16 / 2);
  }
}

TEST(SampledMaxLoad, GroupsByTheirBestTwoExperts) {
  // A token takes the pair of the best of three groups: two tokens take the same pair with 1/3.
  const LoadCase pairs{.batch = 2, .chips = 1, .experts = 6, .top_k = 2};
  ExpectWithin(Sample(pairs, {.groups = 3, .top_groups = 1}).active_experts, 4 - 2.0 / 3);
  // Two groups of one pair each, one of them without popularity but for one expert, whose score u^(1/w) has w = 2 (of
  // weights 1, 0, 0.5, 0.5: mean 0.5): P(sqrt(u) > v + v') for the w = 1 of the others is P(v + v' < s) integrated over
  // the density 2 s of s = sqrt(u): the integral of s^2 / 2 * 2 s from 0 to 1, 1/4.  In group 0 expert 0 is taken, in
  // group 1 either: two tokens have the same one with 1/16 + 9/16 / 2.
  const LoadCase one{.batch = 2, .chips = 1, .experts = 4, .top_k = 1};
  ExpectWithin(Sample(one, {.popularity = {1, 0, 0.5, 0.5}, .groups = 2, .top_groups = 1}).active_experts,
               2 - (1.0 / 16 + 9.0 / 32));
  // The same popularity for all is none.
  const LoadCase published{.batch = 4, .chips = 32};
  const SampledMean with =
      Sample(published, {.popularity = std::vector<double>(256, 7.0), .groups = 8, .top_groups = 4},
             {.samples = 5'000})
          .active_experts;
  const SampledMean without = Sample(published, {.groups = 8, .top_groups = 4}, {.samples = 10'000}).active_experts;
  EXPECT_NEAR(with.mean, without.mean, 4 * std::hypot(with.standard_error, without.standard_error));
}

// 4 of 8 groups, 4 tokens on 32 chips, top-8 of 256: 3.4729 (standard error 0.0011) was simulated elsewhere, with
// groups that are chosen without regard to the experts' scores.  Choosing them by scores makes a token's experts spread
// better.
TEST(SampledMaxLoad, GroupLimitedRoutingOf256Experts) {
  const LoadCase load{.batch = 4, .chips = 32};
  const auto with = [&](GroupRule rule) {
    return Sample(load, {.groups = 8, .top_groups = 4, .rule = rule}, {.samples = 40'000}).active_experts;
  };
  const SampledMean independent = with(GroupRule::kIndependent);
  EXPECT_NEAR(independent.mean, 3.4729, 4 * std::hypot(independent.standard_error, 0.0011));
  ExpectWithin(with(GroupRule::kBestExpert), 3.3645, 5);  // Of a second program, standard errors 0.0017.
  ExpectWithin(with(GroupRule::kBestTwo), 3.3420, 5);
}

TEST(SampledMaxLoad, AllGroupsAreNoRestriction) {
  const LoadCase load{.batch = 4, .chips = 32};
  EXPECT_TRUE(IsUniform({.groups = 8, .top_groups = 8}));
  EXPECT_FALSE(IsUniform({.groups = 8, .top_groups = 7}));
  EXPECT_EQ(Sample(load, {.groups = 8, .top_groups = 8}, {.samples = 1000}).active_experts.mean,
            Sample(load, {}, {.samples = 1000}).active_experts.mean);
}

TEST(SampledMaxLoad, DoesNotDependOnThreads) {
  const LoadCase load{.batch = 40, .chips = 32};
  const std::vector<double> popularity = [] {
    std::vector<double> p;
    for (int i = 0; i < 256; ++i) p.push_back(1.0 / (1 + i));
    return p;
  }();
  for (const RoutingLaw& law :
       {RoutingLaw{}, RoutingLaw{.popularity = popularity}, RoutingLaw{.groups = 8, .top_groups = 4}}) {
    const int64_t samples = law.groups > 1 ? 600 : 12'000;  // Several blocks.
    const SampledLoad one = Sample(load, law, {.samples = samples, .seed = 3, .threads = 1});
    for (const int threads : {2, 5}) {
      const SampledLoad many = Sample(load, law, {.samples = samples, .seed = 3, .threads = threads});
      EXPECT_EQ(one.active_experts.mean, many.active_experts.mean);
      EXPECT_EQ(one.active_experts.standard_error, many.active_experts.standard_error);
      EXPECT_EQ(one.pairs.mean, many.pairs.mean);
    }
    const SampledLoad other_seed = Sample(load, law, {.samples = samples, .seed = 4, .threads = 1});
    EXPECT_NE(one.pairs.mean, other_seed.pairs.mean);
  }
}

// The standard error is that of the mean: over many seeds, (mean - exact) / error has variance 1.
TEST(SampledMaxLoad, TheStandardErrorIsOne) {
  const LoadCase load{.batch = 4, .chips = 32};
  const double exact = ExactMaxExpertLoad(load).value();
  double squares = 0;
  constexpr int kSeeds = 400;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    const SampledMean estimate = Sample(load, {}, {.samples = 500, .seed = seed}).active_experts;
    squares += std::pow((estimate.mean - exact) / estimate.standard_error, 2);
  }
  EXPECT_NEAR(squares / kSeeds, 1, 4 * std::sqrt(2.0 / kSeeds));
}

TEST(SampledMaxLoad, EndsWhenAskedTo) {
  const std::atomic<bool> stop{true};
  EXPECT_TRUE(absl::IsCancelled(SampleMaxLoad({.batch = 4, .chips = 32}, {}, {.stop = StopToken(&stop)}).status()));
}

TEST(SampledMaxLoad, SaysWhatWouldFit) {
  const auto error = [](const LoadCase& load, const RoutingLaw& law, int64_t samples = 10) {
    return std::string(SampleMaxLoad(load, law, {.samples = samples}).status().message());
  };
  const LoadCase load{.batch = 1, .chips = 1, .experts = 8, .top_k = 3};
  EXPECT_EQ(error(load, {.groups = 3, .top_groups = 1}), "--groups: 3 equal groups of 8 experts; a divisor would fit");
  EXPECT_EQ(error(load, {.groups = 0, .top_groups = 1}), "--groups: 0 equal groups of 8 experts; a divisor would fit");
  EXPECT_EQ(error(load, {.groups = 4, .top_groups = 5}), "--group-topk: 5 of 4 groups; 1 to 4 would fit");
  EXPECT_EQ(error(load, {.groups = 4, .top_groups = 0}), "--group-topk: 0 of 4 groups; 1 to 4 would fit");
  EXPECT_EQ(error(load, {.groups = 4, .top_groups = 1}), "--topk: 3 experts of 1 groups of 2; at most 2 can be chosen");
  EXPECT_EQ(error(load, {.popularity = {1, 2}}), "--popularity: 2 numbers for 8 experts");
  EXPECT_EQ(error(load, {.popularity = {1, 2, -1, 1, 1, 1, 1, 1}}),
            "--popularity: expert 2: -1 is not a number from 0 up");
  EXPECT_THAT(error(load, {.popularity = {1, 2, std::numeric_limits<double>::quiet_NaN(), 1, 1, 1, 1, 1}}),
              HasSubstr("expert 2: nan"));
  EXPECT_EQ(error(load, {.popularity = {0, 0, 1, 1, 0, 0, 0, 0}}),
            "--popularity: only 2 experts that are not 0, and a token chooses 3");
  EXPECT_EQ(error(load, {.popularity = {0, 0, 1, 1, 1, 1, 1, 1}, .groups = 4, .top_groups = 2}),
            "--popularity: 2 groups have only 2 experts that are not 0, and a token chooses 3");
  EXPECT_THAT(error({.batch = int64_t{1} << 40, .chips = 1}, {}), HasSubstr("too many to simulate; at most 2097152"));
  EXPECT_THAT(error({.batch = 1, .chips = 1, .experts = 20'000}, {}), HasSubstr("at most 16384"));
  EXPECT_THAT(error(load, {}, 1), HasSubstr("--samples: 1 batches; 2 to"));
}

}  // namespace
}  // namespace epsim
