// Question: are the counts of a trace without ids split and spread as the formulas say?

#include "models/routing/expected_routing.h"

#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/routing/token_routing.h"

namespace epsim {
namespace {

using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::Ge;
using ::testing::IsEmpty;
using ::testing::Le;

PlacementShape Shape(int ranks, int experts, int slots) {
  PlacementShape shape;
  shape.layers = 1;
  shape.experts = experts;
  shape.slots = slots;
  shape.ranks = ranks;
  return shape;
}

StepBatch Batch(const std::vector<uint32_t>& counts, std::vector<int32_t> rank_begin) {
  StepBatch batch;
  batch.layers = 1;
  batch.tokens = rank_begin.back();
  batch.rank_begin = std::move(rank_begin);
  batch.counts = counts.data();
  return batch;
}

RoutedLayer Expected(const StepBatch& batch, const PlacementShape& shape, const ReplicaTable& table,
                     const RoutingDetail& detail = {}) {
  RoutedLayer routed;
  CountExpected(batch, WholeBatch(batch), Layer(0), shape, table, detail, &routed);
  return routed;
}

TEST(ExpectedRouting, TwoRanksByHand) {
  // Experts 0 and 1 on rank 0, 2 and 3 on rank 1; 8 tokens, 4 a source, top-2.
  // To rank 0: 4 (1 - (1 - 6/8) (1 - 2/8)) = 3.25 of each source, to rank 1: 4 (1 - (1 - 4/8)(1 - 4/8)) = 3.
  // In whole tokens with f = 1/4, 3/4: floor(3.5), floor(6.75) - 3; floor(3.75), floor(6.75) - 3.
  const std::vector<uint32_t> counts = {6, 2, 4, 4};
  const ReplicaTable table{1, 2, 4, {0, 1, 2, 3, 0, 1, 2, 3}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 4, 8}), Shape(2, 4, 4), table);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(6, 2, 4, 4));
  EXPECT_THAT(routed.tokens_between, ElementsAre(3, 3, 3, 3));
  EXPECT_EQ(routed.pairs, 16);
}

TEST(ExpectedRouting, SharesFollowTheSourcesByLargestRemainder) {
  // One expert, three slots on three ranks, each source its own: sources of 5, 3 and 2 tokens share 9 tokens
  // as 4.5, 2.7 and 1.8, so that the two missing go to the remainders .8 and .7.
  const std::vector<uint32_t> counts = {9};
  const ReplicaTable table{1, 3, 1, {0, 1, 2}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 5, 8, 10}), Shape(3, 1, 3), table);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(4, 3, 2));
  EXPECT_EQ(routed.pairs, 9);
}

TEST(ExpectedRouting, EqualRemaindersGoToTheLowerSlot) {
  const std::vector<uint32_t> counts = {3};
  const ReplicaTable table{1, 2, 1, {1, 0}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 2, 4}), Shape(2, 1, 2), table);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(2, 1));
}

TEST(ExpectedRouting, AnExpertOfEveryTokenIsVisitedByEveryToken) {
  // count = tokens: x[s][d] = n_s exactly, whatever else lies on d; a rank without chosen experts gets nothing.
  const std::vector<uint32_t> counts = {10, 3, 0};
  const ReplicaTable table{1, 3, 3, {0, 0, 2, 0, 0, 2, 0, 0, 2}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 7, 7, 10}), Shape(3, 3, 3), table);
  EXPECT_THAT(routed.tokens_between, ElementsAre(7, 0, 0, 0, 0, 0, 3, 0, 0));
}

TEST(ExpectedRouting, NothingInAnEmptyStep) {
  const std::vector<uint32_t> counts = {0, 0};
  const ReplicaTable table{1, 1, 2, {0, 1}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 0}), Shape(1, 2, 2), table);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(0, 0));
  EXPECT_THAT(routed.tokens_between, ElementsAre(0));
  EXPECT_EQ(routed.pairs, 0);
}

TEST(ExpectedRouting, ANodeIsVisitedUnlessNoneOfItsExpertsIsChosen) {
  // As TwoRanksByHand with a rank an expert and a node for two: what was expected of a rank is expected of a node.
  const std::vector<uint32_t> counts = {6, 2, 4, 4};
  const ReplicaTable table{1, 4, 4, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}};
  PlacementShape shape = Shape(4, 4, 4);
  shape.nodes = 2;
  const RoutedLayer routed = Expected(Batch(counts, {0, 4, 4, 4, 8}), shape, table, {.tokens_to_node = true});
  EXPECT_THAT(routed.tokens_to_node, ElementsAre(3, 3, 0, 0, 0, 0, 3, 3));
  EXPECT_THAT(routed.pairs_between, IsEmpty());
}

TEST(ExpectedRouting, PairsBelongToTheSourcesOfTheirSlot) {
  // Experts 0 and 1 on rank 0, 2 on rank 1, and sources of equal size: each has half of the pairs, whole as 6 and 2
  // are even.
  const std::vector<uint32_t> counts = {6, 2, 4};
  const ReplicaTable table{1, 2, 3, {0, 1, 2, 0, 1, 2}};
  const RoutedLayer routed = Expected(Batch(counts, {0, 4, 8}), Shape(2, 3, 4), table, {.pairs_between = true});
  EXPECT_THAT(routed.pairs_between, ElementsAre(4, 2, 4, 2));
  EXPECT_THAT(routed.tokens, ElementsAre(4, 4));
  EXPECT_THAT(routed.tokens_to_node, IsEmpty());
}

TEST(ExpectedRouting, ARangeHasItsShareOfEachNumber) {
  // Half of the tokens of source 0, all of source 1: of the pairs above 2 + 4 and 1 + 2; of the visits of source 0,
  // 4 (1 - 2/8 * 6/8) = 3.25 and 4 * 4/8 = 2, whole 3 and 2, one or two, and one.
  const std::vector<uint32_t> counts = {6, 2, 4};
  const ReplicaTable table{1, 2, 3, {0, 1, 2, 0, 1, 2}};
  const StepBatch batch = Batch(counts, {0, 4, 8});
  const TokenRange range{{2, 4}, {4, 8}};
  RoutedLayer routed;
  CountExpected(batch, range, Layer(0), Shape(2, 3, 4), table, {.pairs_between = true}, &routed);
  EXPECT_THAT(routed.tokens, ElementsAre(2, 4));
  // Of expert 0: half of 3 and 3; of expert 1: half of 1 and 1.  Halves are rounded either way.
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(AnyOf(4, 5), AnyOf(1, 2), 3, 0));
  EXPECT_THAT(routed.pairs_between, ElementsAre(AllOf(Ge(1), Le(3)), 1, 4, 2));
  EXPECT_EQ(routed.pairs, std::accumulate(routed.tokens_per_slot.begin(), routed.tokens_per_slot.end(), 0));
  EXPECT_THAT(routed.tokens_between, ElementsAre(AnyOf(1, 2), 1, 3, 2));
}

// 64 ranks with 16 tokens each, 64 experts with two slots each: each source expects a fraction of a token at most
// ranks.
class SmallSources : public ::testing::Test {
 protected:
  static constexpr int kRanks = 64, kExperts = 64, kTokens = kRanks * 16, kTopK = 8;

  SmallSources() : random_(3, "expected_routing_test"), shape_(Shape(kRanks, kExperts, 2 * kExperts)) {
    for (int s = 0; s <= kRanks; ++s) rank_begin_.push_back(s * 16);
    table_ = {1, kRanks, kExperts, {}};
    for (int s = 0; s < kRanks; ++s) {
      for (int e = 0; e < kExperts; ++e) {
        table_.slot.push_back(static_cast<uint16_t>(random_.Below(2) == 0 ? e : 2 * kExperts - 1 - e));
      }
    }
    // Independent experts with probabilities that add up to about top_k.
    for (int e = 0; e < kExperts; ++e) {
      const double weight = 2.0 * kTopK * (e + 0.5) / (kExperts * kExperts);
      counts_.push_back(static_cast<uint32_t>(std::lround(weight * kTokens)));
    }
  }

  RandomStream random_;
  PlacementShape shape_;
  std::vector<int32_t> rank_begin_;
  ReplicaTable table_;
  std::vector<uint32_t> counts_;
};

TEST_F(SmallSources, PairsAreConservedAndNoSlotIsOffByOne) {
  const RoutedLayer routed = Expected(Batch(counts_, rank_begin_), shape_, table_);
  EXPECT_EQ(routed.pairs, std::accumulate(counts_.begin(), counts_.end(), int64_t{0}));
  std::vector<double> exact(static_cast<size_t>(shape_.slots));
  for (int s = 0; s < kRanks; ++s) {
    for (size_t e = 0; e < counts_.size(); ++e) {
      exact[table_.of(Layer(0), Rank(s))[e]] += static_cast<double>(counts_[e]) / kRanks;
    }
  }
  for (size_t e = 0; e < counts_.size(); ++e) {
    const size_t other = 2 * counts_.size() - 1 - e;
    EXPECT_EQ(routed.tokens_per_slot[e] + routed.tokens_per_slot[other], static_cast<int32_t>(counts_[e]));
    EXPECT_LT(std::abs(routed.tokens_per_slot[e] - exact[e]), 1.0);
    EXPECT_LT(std::abs(routed.tokens_per_slot[other] - exact[other]), 1.0);
  }
}

TEST_F(SmallSources, WhatARankReceivesIsRightToOneToken) {
  const RoutedLayer routed = Expected(Batch(counts_, rank_begin_), shape_, table_);
  double all_exact = 0;
  int64_t all = 0;
  for (int d = 0; d < kRanks; ++d) {
    double exact = 0;
    int32_t received = 0;
    for (int s = 0; s < kRanks; ++s) {
      double absent = 1;
      for (size_t e = 0; e < counts_.size(); ++e) {
        const Slot slot{table_.of(Layer(0), Rank(s))[e]};
        if (shape_.rank_of(slot) == Rank(d)) absent *= 1 - counts_[e] / static_cast<double>(kTokens);
      }
      exact += 16 * (1 - absent);
      const int32_t between = routed.tokens_between[static_cast<size_t>(s * kRanks + d)];
      // Whole, above or below the expectation.
      EXPECT_LT(std::abs(between - 16 * (1 - absent)), 1.0);
      received += between;
    }
    EXPECT_LT(std::abs(received - exact), 1.0);
    all += received;
    all_exact += exact;
  }
  // The offsets are spread, so that the errors of the ranks do not add up.
  EXPECT_LT(std::abs(static_cast<double>(all) - all_exact), 8.0);
}

// What the slots of a rank compute is what was sent to it, in the batch and in any range of it; and every source sends
// its share.
TEST_F(SmallSources, PairsBetweenRanksAreThePairsOfTheirSlots) {
  const StepBatch batch = Batch(counts_, rank_begin_);
  TokenRange chunk = WholeBatch(batch);
  for (int32_t& end : chunk.end) end -= 8;
  int64_t pairs[2] = {};
  for (const TokenRange& range : {WholeBatch(batch), chunk}) {
    RoutedLayer routed;
    CountExpected(batch, range, Layer(0), shape_, table_, {.pairs_between = true}, &routed);
    std::vector<int64_t> computed(kRanks), received(kRanks), sent(kRanks);
    for (size_t p = 0; p < routed.tokens_per_slot.size(); ++p) {
      computed[Index(shape_.rank_of(Slot(static_cast<int32_t>(p))))] += routed.tokens_per_slot[p];
    }
    for (size_t i = 0; i < routed.pairs_between.size(); ++i) {
      received[i % kRanks] += routed.pairs_between[i];
      sent[i / kRanks] += routed.pairs_between[i];
    }
    EXPECT_THAT(received, Eq(computed));
    const double mean = static_cast<double>(routed.pairs) / kRanks;
    for (const int64_t of_source : sent) EXPECT_NEAR(static_cast<double>(of_source), mean, 0.15 * mean);
    pairs[range.end == chunk.end ? 1 : 0] = routed.pairs;
  }
  // Half of the tokens have half of the pairs.
  EXPECT_NEAR(static_cast<double>(pairs[1]), static_cast<double>(pairs[0]) / 2, 0.01 * static_cast<double>(pairs[0]));
}

// Tokens drawn with independent experts: what TokenRouting counts of them is within 4 standard errors of the
// expectation.
TEST_F(SmallSources, AgreesWithDrawnTokens) {
  constexpr int kRounds = 400;
  // A token may draw any number of experts, so that its ids fill top_k = kExperts partly.
  std::vector<double> received(kRanks), expected(kRanks);
  std::vector<uint8_t> ids(static_cast<size_t>(kTokens) * kExperts), valid_count(kTokens);
  const auto routing = NewTokenRouting(shape_, table_);
  RoutedLayer routed;
  for (int round = 0; round < kRounds; ++round) {
    for (size_t t = 0; t < valid_count.size(); ++t) {
      valid_count[t] = 0;
      for (size_t e = 0; e < counts_.size(); ++e) {
        if (random_.Unit() * kTokens < counts_[e]) ids[t * kExperts + valid_count[t]++] = static_cast<uint8_t>(e);
      }
    }
    StepBatch batch;
    batch.tokens = kTokens;
    batch.rank_begin = rank_begin_;
    batch.layers = 1;
    batch.top_k = kExperts;
    batch.ids = reinterpret_cast<const std::byte*>(ids.data());
    batch.valid_count = valid_count.data();
    routing->Count(batch, WholeBatch(batch), Layer(0), &routed);
    for (size_t i = 0; i < routed.tokens_between.size(); ++i) received[i % kRanks] += routed.tokens_between[i];
  }
  // Handed over by Count, as there are no ids.
  const StepBatch without_ids = Batch(counts_, rank_begin_);
  routing->Count(without_ids, WholeBatch(without_ids), Layer(0), &routed);
  for (size_t i = 0; i < routed.tokens_between.size(); ++i) expected[i % kRanks] += routed.tokens_between[i];
  for (size_t d = 0; d < received.size(); ++d) {
    // Bernoulli tokens: the variance of what a step brings is at most its mean.
    const double standard_error = std::sqrt(expected[d] / kRounds);
    EXPECT_NEAR(received[d] / kRounds, expected[d], 1.0 + 4 * standard_error) << "rank " << d;
  }
}

}  // namespace
}  // namespace epsim
