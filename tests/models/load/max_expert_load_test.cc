// Question: is the expected load of the busiest chip exact?
#include "models/load/max_expert_load.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

double Exact(const LoadCase& load) {
  const absl::StatusOr<double> exact = ExactMaxExpertLoad(load);
  EXPECT_TRUE(exact.ok()) << exact.status();
  return exact.value_or(NAN);
}

// All choices of all tokens, one by one.
double ByEnumeration(const LoadCase& load) {
  std::vector<uint32_t> sets;  // A token's choice: the experts as bits.
  for (uint32_t set = 0; set < uint32_t{1} << load.experts; ++set) {
    if (std::popcount(set) == load.top_k) sets.push_back(set);
  }
  std::vector<uint32_t> chips;
  int first = 0;
  for (int chip = 0; chip < load.chips; ++chip) {
    chips.push_back(((uint32_t{1} << ExpertsOfChip(load, chip)) - 1) << first);
    first += ExpertsOfChip(load, chip);
  }
  EXPECT_EQ(first, load.experts);
  double sum = 0, cases = 0;
  std::vector<size_t> choice(static_cast<size_t>(load.batch), 0);
  while (true) {
    uint32_t active = 0;
    for (const size_t i : choice) active |= sets[i];
    int most = 0;
    for (const uint32_t chip : chips) most = std::max(most, std::popcount(active & chip));
    sum += most;
    ++cases;
    size_t token = 0;
    while (token < choice.size() && ++choice[token] == sets.size()) choice[token++] = 0;
    if (token == choice.size()) return sum / cases;
  }
}

TEST(MaxExpertLoad, EqualsEnumeration) {
  for (const int experts : {1, 2, 5, 6, 7}) {
    for (int top_k = 1; top_k <= std::min(experts, 4); ++top_k) {
      for (int chips = 1; chips <= experts + 2; ++chips) {
        for (int64_t batch = 1; batch <= 3; ++batch) {
          const LoadCase load{.batch = batch, .chips = chips, .experts = experts, .top_k = top_k};
          EXPECT_NEAR(Exact(load), ByEnumeration(load), 1e-12)
              << experts << " experts, top-" << top_k << ", " << chips << " chips, batch " << batch;
        }
      }
    }
  }
}

TEST(MaxExpertLoad, TwoTokensByHand) {
  // Three experts, one each, on chips of two experts and of one.  Same expert (1/3): 1.  Different experts: both of the
  // first chip in one of three pairs: 2; else 1.  1/3 + 2/3 (1/3 2 + 2/3 1) = 11/9.
  EXPECT_NEAR(Exact({.batch = 2, .chips = 2, .experts = 3, .top_k = 1}), 11.0 / 9, 1e-14);
}

TEST(MaxExpertLoad, OneChipHasAClosedForm) {
  for (const int experts : {1, 16, 100, 256, 1000, kMostExactExperts}) {
    for (const int top_k : {1, 8, experts / 2, experts}) {
      if (top_k < 1 || top_k > experts) continue;
      for (const int64_t batch : {1, 2, 4, 33, 1000}) {
        const double closed = experts * (1 - std::pow(1 - static_cast<double>(top_k) / experts, batch));
        const LoadCase load{.batch = batch, .chips = 1, .experts = experts, .top_k = top_k};
        EXPECT_NEAR(Exact(load) / closed, 1, 1e-11) << experts << " " << top_k << " " << batch;
        EXPECT_NEAR(ExpectedActiveExperts(load) / closed, 1, 1e-13);
      }
    }
  }
}

TEST(MaxExpertLoad, OneExpertAChipIsOne) {
  EXPECT_NEAR(Exact({.batch = 4, .chips = 256}), 1, 1e-14);
  EXPECT_NEAR(Exact({.batch = 4, .chips = 1'000'000}), 1, 1e-14);
}

TEST(MaxExpertLoad, AnyBatchCanBeAskedFor) {
  // All 256 experts are active in the end; of seven chips, the first four have 37, the others 36.
  EXPECT_EQ(Exact({.batch = int64_t{1} << 62, .chips = 7}), 37);
  EXPECT_EQ(Exact({.batch = int64_t{1} << 62, .chips = 7, .experts = kMostExactExperts, .top_k = 1}), 586);
}

// More tokens activate more, more chips hold fewer each.
TEST(MaxExpertLoad, GrowsWithTheBatchAndShrinksWithTheChips) {
  double last = 0;
  for (int64_t batch = 1; batch <= 64; ++batch) {
    const double now = Exact({.batch = batch, .chips = 12, .experts = 128, .top_k = 6});
    EXPECT_GT(now, last);
    last = now;
  }
  last = 1e9;
  for (const int chips : {1, 2, 4, 8, 16, 32, 64, 128}) {
    const double now = Exact({.batch = 10, .chips = chips, .experts = 128, .top_k = 6});
    EXPECT_LT(now, last);
    EXPECT_GE(now, ExpectedActiveExperts({.batch = 10, .chips = 1, .experts = 128, .top_k = 6}) / chips - 1e-12);
    last = now;
  }
}

TEST(MaxExpertLoad, SaysWhatWouldFit) {
  const auto error = [](const LoadCase& load) { return std::string(ExactMaxExpertLoad(load).status().message()); };
  EXPECT_EQ(error({.batch = 0, .chips = 1}), "--batch: 0 tokens; at least 1 is needed");
  EXPECT_EQ(error({.batch = -3, .chips = 1}), "--batch: -3 tokens; at least 1 is needed");
  EXPECT_EQ(error({.batch = 1, .chips = 0}), "--chips: 0; at least 1 is needed");
  EXPECT_EQ(error({.batch = 1, .chips = 1, .experts = 0}), "--experts: 0; at least 1 is needed");
  EXPECT_EQ(error({.batch = 1, .chips = 1, .experts = 8, .top_k = 0}), "--topk: 0; a token chooses at least 1 expert");
  EXPECT_EQ(error({.batch = 1, .chips = 1, .experts = 8, .top_k = 9}),
            "--topk: 9 distinct experts of 8; at most 8 can be chosen");
  EXPECT_THAT(error({.batch = 1, .chips = 1, .experts = 4097}), HasSubstr("which takes up to 4096"));
}

}  // namespace
}  // namespace epsim
