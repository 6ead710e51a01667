// Every figure by hand on traces small enough to see through.
#include "traces/statistics/trace_statistics.h"

#include <atomic>
#include <set>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/traces/workload/memory_trace.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

TraceStatistics Measure(const TraceReader& trace) {
  absl::StatusOr<TraceStatistics> statistics = MeasureTrace(trace, StopToken(), nullptr);
  EXPECT_TRUE(statistics.ok()) << statistics.status();
  return *std::move(statistics);
}

TEST(TraceStatistics, SkewAndBalancednessOfALayer) {
  // One layer, 8 experts, top-1.  Tokens per expert: 4 1 0 1 | 2 0 0 0: 8 tokens, mean 1, skew 4.
  // On 4 ranks: 5 1 2 0, mean 2: balancedness 2 / 5.  On 8: 1 / 4.
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 8, 1));
  trace.AddRequest(0, 8);
  trace.AddChunk({.tokens = 5, .ids = {0, 0, 4, 0, 3}});
  trace.AddChunk({.tokens = 3, .ids = {4, 1, 0}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_THAT(statistics.tokens_of_expert, ElementsAre(4, 1, 0, 1, 2, 0, 0, 0));
  ASSERT_TRUE(statistics.skew.has_value());
  EXPECT_DOUBLE_EQ(statistics.skew->mean, 4.0);
  ASSERT_EQ(statistics.balancedness.size(), 2u);
  EXPECT_EQ(statistics.balancedness[0].ranks, 4);
  EXPECT_DOUBLE_EQ(statistics.balancedness[0].tokens, 0.4);
  EXPECT_EQ(statistics.balancedness[1].ranks, 8);
  EXPECT_DOUBLE_EQ(statistics.balancedness[1].tokens, 0.25);
}

TEST(TraceStatistics, AveragesOverLayersAndNamesTheWorst) {
  // 4 experts, top-1.  Layer 0: 1 1 1 1, skew 1, balancedness 1.  Layer 1: 4 0 0 0, skew 4, balancedness 1 / 4.
  MemoryTrace trace(HeaderOf(REQUEST, 2, 1, 4, 1));
  trace.AddRequest(0, 4);
  trace.AddChunk({.tokens = 4, .ids = {0, 0, 1, 0, 2, 0, 3, 0}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_DOUBLE_EQ(statistics.skew->mean, 2.5);
  EXPECT_DOUBLE_EQ(statistics.skew->worst, 4.0);
  EXPECT_EQ(statistics.skew->worst_layer, 1);
  ASSERT_EQ(statistics.balancedness.size(), 1u);
  EXPECT_DOUBLE_EQ(statistics.balancedness[0].tokens, 0.625);
}

TEST(TraceStatistics, BalancednessIsGivenWhereRanksDivideTheExperts) {
  // 72 experts: 4 and 8 divide, 16 32 64 do not.
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 72, 1));
  trace.AddRequest(0, 1);
  trace.AddChunk({.tokens = 1, .ids = {0}});
  std::vector<int> ranks;
  for (const auto& entry : Measure(trace).balancedness) ranks.push_back(entry.ranks);
  EXPECT_THAT(ranks, ElementsAre(4, 8));
}

TEST(TraceStatistics, OverlapCountsTokensThatFollowEachOtherInARequest) {
  // One layer, top-2 of 8.  Request 0: {0,1} {1,2} {2,1} {5,6}: 1 + 2 + 0 of 6 ids.  Request 1: {6,5} {6,7}: its first
  // follows nobody; 1 of 2.  Together 4 of 8; random 2 / 8.  The chunk's end between rows 1 and 2 changes nothing.
  for (const int64_t cut : {1, 2, 4, 5}) {
    const std::vector<uint16_t> ids = {0, 1, 1, 2, 2, 1, 5, 6, 6, 5, 6, 7};
    MemoryTrace trace(HeaderOf(REQUEST, 1, 2, 8, 2));
    trace.AddRequest(0, 4);
    trace.AddRequest(4, 2);
    trace.AddChunk({.tokens = cut, .ids = {ids.begin(), ids.begin() + 2 * cut}});
    trace.AddChunk({.tokens = 6 - cut, .ids = {ids.begin() + 2 * cut, ids.end()}});
    const TraceStatistics statistics = Measure(trace);
    ASSERT_TRUE(statistics.overlap.has_value());
    EXPECT_EQ(statistics.overlap->pairs, 4);
    EXPECT_DOUBLE_EQ(statistics.overlap->mean, 0.5);
    EXPECT_DOUBLE_EQ(statistics.overlap->random, 0.25);
    EXPECT_EQ(statistics.requests, 2);
    EXPECT_EQ(statistics.longest_request, 4);
  }
}

TEST(TraceStatistics, OverlapOfStepsIsWithinAStepAndARequest) {
  // Step 0: tokens of requests 0 0 1, layer 0 ids {0} {0} {0}, layer 1 {1} {2} {2}: the pair (0, 1) has 1 of 2.
  // Step 1: request 1 again, but in another step: no pair.
  MemoryTrace trace(HeaderOf(STEP, 2, 1, 4, 1));
  trace.AddRequest(0, 2);
  trace.AddRequest(0, 2);
  trace.AddChunk({.tokens = 3, .step = 0, .ids = {0, 0, 0, 1, 2, 2}, .request_index = {0, 0, 1}});
  trace.AddChunk({.tokens = 1, .step = 1, .ids = {0, 2}, .request_index = {1}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_EQ(statistics.overlap->pairs, 1);
  EXPECT_DOUBLE_EQ(statistics.overlap->mean, 0.5);
}

TEST(TraceStatistics, OverlapOfStepsWithoutRequestsIsThatOfPrefill) {
  // Three prefill tokens in two chunks of one step: pairs (0, 1) and (1, 2).  Then two decode tokens: no pair.
  MemoryTrace trace(HeaderOf(STEP, 1, 1, 4, 1));
  trace.AddChunk({.tokens = 2, .step = 0, .ids = {3, 3}, .phase = {PREFILL, PREFILL}});
  trace.AddChunk({.tokens = 1, .step = 0, .ids = {2}, .phase = {PREFILL}});
  trace.AddChunk({.tokens = 2, .step = 1, .ids = {2, 2}, .phase = {DECODE, DECODE}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_EQ(statistics.overlap->pairs, 2);
  EXPECT_DOUBLE_EQ(statistics.overlap->mean, 0.5);
  EXPECT_EQ(statistics.prefill_tokens, 3);
  EXPECT_EQ(statistics.decode_tokens, 2);
}

TEST(TraceStatistics, MissingIdsAreCountedAndLeftOut) {
  // 2 layers, top-2.  Token 0 has 1 id in layer 0 (the 3 behind it is nothing) and none in layer 1; token 1 has all.
  MemoryTrace trace(HeaderOf(REQUEST, 2, 2, 4, 1));
  trace.AddRequest(0, 2);
  trace.AddChunk({.tokens = 2, .ids = {0, 3, 3, 3, 0, 3, 1, 2}, .valid_count = {1, 0, 2, 2}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_EQ(statistics.missing_ids, 3);
  EXPECT_EQ(statistics.tokens_missing_ids, 1);
  EXPECT_THAT(statistics.tokens_of_expert, ElementsAre(2, 0, 0, 1, 0, 1, 1, 0));
  // One id agrees (0 in layer 0) of 1 pair x 2 layers x 2 places.
  EXPECT_DOUBLE_EQ(statistics.overlap->mean, 0.25);
}

TEST(TraceStatistics, WithoutAnyIdThereIsNothingToAverage) {
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 4, 1));
  trace.AddRequest(0, 1);
  trace.AddChunk({.tokens = 1, .ids = {0}, .valid_count = {0}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_FALSE(statistics.skew.has_value());
  EXPECT_TRUE(statistics.balancedness.empty());
  EXPECT_FALSE(statistics.overlap.has_value());
}

TEST(TraceStatistics, CountsGiveSkewAndBalancedness) {
  // 2 steps, 1 layer, 4 experts, top-2: 3 + 1 + 0 + 0 = 4 pairs, 2 tokens; 0 + 1 + 0 + 0 = 1 pair, 1 token.
  MemoryTrace trace(HeaderOf(COUNTS, 1, 2, 4, 1));
  trace.AddChunk({.tokens = 2, .counts = {3, 1, 0, 0, 0, 1, 0, 0}});
  const TraceStatistics statistics = Measure(trace);
  EXPECT_EQ(statistics.tokens, 3);
  EXPECT_THAT(statistics.tokens_of_expert, ElementsAre(3, 2, 0, 0));
  EXPECT_DOUBLE_EQ(statistics.skew->mean, 3 / 1.25);
  EXPECT_DOUBLE_EQ(statistics.balancedness[0].tokens, 1.25 / 3);
  EXPECT_FALSE(statistics.overlap.has_value());
}

TEST(TraceStatistics, EqualsTheDefinitionOnRandomIds) {
  // 5 layers, top-3 of 20, u16, 200 tokens in chunks of 70, requests of 1 to 30 tokens.
  constexpr int kLayers = 5, kTopK = 3, kExperts = 20, kTokens = 200;
  RandomStream random(1, "test");
  std::vector<uint16_t> ids;
  for (int i = 0; i < kTokens * kLayers; ++i) {
    std::vector<uint16_t> top;
    while (top.size() < kTopK) {
      const auto id = static_cast<uint16_t>(random.Below(kExperts));
      if (std::find(top.begin(), top.end(), id) == top.end()) top.push_back(id);
    }
    ids.insert(ids.end(), top.begin(), top.end());
  }
  MemoryTrace trace(HeaderOf(REQUEST, kLayers, kTopK, kExperts, 2));
  std::set<int64_t> starts;
  for (int64_t first = 0; first < kTokens;) {
    const int64_t tokens = std::min<int64_t>(kTokens - first, 1 + static_cast<int64_t>(random.Below(30)));
    trace.AddRequest(first, tokens);
    starts.insert(first);
    first += tokens;
  }
  for (int first = 0; first < kTokens; first += 70) {
    const int end = std::min(first + 70, kTokens);
    trace.AddChunk(
        {.tokens = end - first, .ids = {ids.begin() + first * kLayers * kTopK, ids.begin() + end * kLayers * kTopK}});
  }
  int64_t agree = 0, pairs = 0;
  for (int t = 1; t < kTokens; ++t) {
    if (starts.count(t) != 0) continue;
    ++pairs;
    for (int l = 0; l < kLayers; ++l) {
      const auto now = ids.begin() + (t * kLayers + l) * kTopK, before = now - kLayers * kTopK;
      for (int k = 0; k < kTopK; ++k) agree += std::count(before, before + kTopK, now[k]);
    }
  }
  const TraceStatistics statistics = Measure(trace);
  EXPECT_EQ(statistics.overlap->pairs, pairs);
  EXPECT_DOUBLE_EQ(statistics.overlap->mean, static_cast<double>(agree) / static_cast<double>(pairs * kLayers * kTopK));
}

TEST(TraceStatistics, ReportsFaultsAndStops) {
  MemoryTrace trace(HeaderOf(REQUEST, 1, 1, 4, 1));
  trace.AddRequest(0, 1);
  trace.AddChunk({.tokens = 1, .ids = {0}});
  const std::atomic<bool> stopped = true;
  EXPECT_EQ(MeasureTrace(trace, StopToken(&stopped), nullptr).status().code(), absl::StatusCode::kCancelled);
  trace.Spoil(0);
  EXPECT_EQ(MeasureTrace(trace, StopToken(), nullptr).status(), absl::DataLossError("memory.eptrace: chunk 0: spoilt"));
}

}  // namespace
}  // namespace epsim
