// Question: are the slots that a choice deals counted by the definitions of RoutedLayer, and counts without ids split
// as it shares them?
#include "models/routing/dealt_routing.h"

#include <cmath>
#include <memory>
#include <numeric>
#include <set>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/replica/dynamic_replica_choice.h"
#include "policies/replica/lp_replica_choice.h"
#include "policies/replica/round_robin_replica_choice.h"
#include "tests/policies/replica/drawn_call.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::Eq;

constexpr RoutingDetail kAll{.pairs_between = true, .tokens_to_node = true};

// A drawn call as the single layer of a batch.
StepBatch BatchOf(const RouterCall& call) {
  StepBatch batch;
  batch.index = call.step;
  batch.tokens = call.end.back();
  batch.rank_begin.assign(call.begin.begin(), call.begin.end());
  batch.rank_begin.push_back(call.end.back());
  batch.layers = 1;
  batch.top_k = call.top_k;
  batch.id_bytes = call.id_bytes;
  batch.ids = call.ids;
  batch.valid_count = call.valid_count;
  return batch;
}

RoutedLayer ByDefinition(const PlacementShape& shape, const RouterCall& call, absl::Span<const uint16_t> slots) {
  const size_t ranks = shape.ranks, nodes = shape.nodes;
  RoutedLayer routed;
  routed.tokens_per_slot.resize(shape.slots);
  routed.tokens_between.resize(ranks * ranks);
  routed.pairs_between.resize(ranks * ranks);
  routed.tokens_to_node.resize(ranks * nodes);
  routed.tokens.resize(ranks);
  for (size_t s = 0; s < ranks; ++s) {
    for (int32_t token = call.begin[s]; token < call.end[s]; ++token, slots.remove_prefix(call.top_k)) {
      ++routed.tokens[s];
      std::set<size_t> visited, visited_nodes;
      for (int k = 0; k < call.valid(token); ++k) {
        const Rank rank = shape.rank_of(Slot(slots[k]));
        ++routed.tokens_per_slot[slots[k]];
        ++routed.pairs;
        ++routed.pairs_between[s * ranks + Index(rank)];
        visited.insert(Index(rank));
        visited_nodes.insert(Index(shape.node_of(rank)));
      }
      for (const size_t rank : visited) ++routed.tokens_between[s * ranks + rank];
      for (const size_t node : visited_nodes) ++routed.tokens_to_node[s * nodes + node];
    }
  }
  return routed;
}

void ExpectEqual(const RoutedLayer& a, const RoutedLayer& b) {
  EXPECT_THAT(a.tokens_per_slot, Eq(b.tokens_per_slot));
  EXPECT_THAT(a.tokens_between, Eq(b.tokens_between));
  EXPECT_THAT(a.pairs_between, Eq(b.pairs_between));
  EXPECT_THAT(a.tokens_to_node, Eq(b.tokens_to_node));
  EXPECT_THAT(a.tokens, Eq(b.tokens));
  EXPECT_EQ(a.pairs, b.pairs);
}

struct Case {
  PlacementShape shape;
  CallForm form;
};

class DealtRoutingShapes : public testing::TestWithParam<Case> {};

TEST_P(DealtRoutingShapes, CountsByDefinitionTheSlotsThatAreDealt) {
  RandomStream random(12, "dealt_routing_test");
  const PlacementShape& shape = GetParam().shape;
  const Placement placement = DrawPlacement(shape, &random);
  DrawnCall drawn(shape, GetParam().form, &random);
  RouterCall& call = drawn.call;
  const StepBatch batch = BatchOf(call);
  TokenRange some = WholeBatch(batch);
  for (size_t s = 0; s < some.begin.size(); ++s) some.begin[s] += (some.end[s] - some.begin[s]) / 3;
  const std::unique_ptr<PerCallReplicaChoice> choices[] = {NewDynamicReplicaChoice(), NewRoundRobinReplicaChoice(true),
                                                           NewLpReplicaChoice({})};
  RoutedLayer routed;  // Used again: what a layer leaves must not reach the next.
  for (const auto& choice : choices) {
    for (const TokenRange& range : {WholeBatch(batch), some}) {
      call.begin = range.begin;
      call.end = range.end;
      std::vector<uint16_t> slots(call.tokens() * call.top_k);
      choice->Deal(placement, call, absl::MakeSpan(slots));
      RoutedLayer expected = ByDefinition(shape, call, slots);
      EXPECT_GT(expected.pairs, 0);
      NewDealtRouting(placement, *choice, call.random, kAll)->Count(batch, range, Layer(0), &routed);
      ExpectEqual(routed, expected);
      NewDealtRouting(placement, *choice, call.random)->Count(batch, range, Layer(0), &routed);
      expected.pairs_between.clear();
      expected.tokens_to_node.clear();
      ExpectEqual(routed, expected);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, DealtRoutingShapes,
    testing::Values(
        // Words of 64 ranks, and more ranks than that; one- and two-byte ids; any top-k; tokens that lack ids.
        Case{{.layers = 1, .experts = 16, .slots = 24, .ranks = 4, .nodes = 2}, {.tokens_per_rank = 300, .top_k = 8}},
        Case{{.layers = 1, .experts = 256, .slots = 320, .ranks = 64, .nodes = 8}, {.tokens_per_rank = 20}},
        Case{{.layers = 1, .experts = 300, .slots = 400, .ranks = 16, .nodes = 2}, {.top_k = 8, .id_bytes = 2}},
        Case{{.layers = 1, .experts = 64, .slots = 216, .ranks = 72, .nodes = 9},
             {.tokens_per_rank = 30, .ragged = true}},
        Case{{.layers = 1, .experts = 32, .slots = 40, .ranks = 8, .nodes = 1}, {.top_k = 3, .ragged = true}}),
    [](const auto& info) { return "ranks" + std::to_string(info.param.shape.ranks); });

// Pieces of a batch add up to the batch where every token is dealt by itself.
TEST(DealtRouting, OfDynamicPiecesAddUpToTheBatch) {
  RandomStream random(13, "dealt_routing_test");
  const PlacementShape shape{.layers = 1, .experts = 20, .slots = 48, .ranks = 8, .nodes = 2};
  const Placement placement = DrawPlacement(shape, &random);
  const DrawnCall drawn(shape, {.tokens_per_rank = 90, .ragged = true}, &random);
  const StepBatch batch = BatchOf(drawn.call);
  const auto choice = NewDynamicReplicaChoice();
  const auto routing = NewDealtRouting(placement, *choice, 5, kAll);
  TokenRange first = WholeBatch(batch), second = first;
  for (size_t s = 0; s < first.end.size(); ++s) {
    first.end[s] = second.begin[s] = first.begin[s] + (first.end[s] - first.begin[s]) * 2 / 3;
  }
  RoutedLayer whole, a, b;
  routing->Count(batch, WholeBatch(batch), Layer(0), &whole);
  routing->Count(batch, first, Layer(0), &a);
  routing->Count(batch, second, Layer(0), &b);
  const auto add = [](std::vector<int32_t>& to, const std::vector<int32_t>& more) {
    for (size_t i = 0; i < to.size(); ++i) to[i] += more[i];
  };
  add(a.tokens_per_slot, b.tokens_per_slot);
  add(a.tokens_between, b.tokens_between);
  add(a.pairs_between, b.pairs_between);
  add(a.tokens_to_node, b.tokens_to_node);
  add(a.tokens, b.tokens);
  a.pairs += b.pairs;
  ExpectEqual(a, whole);
}

StepBatch CountsOnly(const std::vector<uint32_t>& counts, std::vector<int32_t> rank_begin) {
  StepBatch batch;
  batch.layers = 1;
  batch.tokens = rank_begin.back();
  batch.rank_begin = std::move(rank_begin);
  batch.counts = counts.data();
  return batch;
}

// Two nodes of two ranks; expert 0 in slots 0, 3 and 5, expert 1 in slot 2, expert 2 in slots 6 and 7, that is on rank
// 3 twice; the rest repeat expert 1 on rank 0 and expert 0 on rank 2 (slot 4).  12 tokens: 8 of rank 0, 4 of rank 2.
//
// dynamic: expert 0 (9 pairs) has four replicas: 2.25 each, and the lowest slot one more: 3, 2, 2, 2.  Expert 1 (5
// pairs) in slots 1 and 2: 3 and 2.  Expert 2 (3 pairs): 2 and 1.
// A token of rank 0 goes to rank 0 unless neither of experts 0 and 1 is there: 1 - (1 - 9/12 * 1/4) (1 - 5/12 * 1/2)
// = 0.3568, of 8 tokens 2.85; of rank 2's 4 tokens 1.43.  To rank 3, which has both replicas of expert 2: 3/12, so 2
// and 1.
TEST(DealtRoutingOfCounts, SplitsByTheSharesOfTheChoice) {
  std::vector<LogicalExpert> experts;
  for (const int expert : {0, 1, 1, 0, 0, 0, 2, 2}) experts.push_back(LogicalExpert(expert));
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 8, .ranks = 4, .nodes = 2};
  const Placement placement(shape, experts);
  const std::vector<uint32_t> counts = {9, 5, 3};
  const StepBatch batch = CountsOnly(counts, {0, 8, 8, 12, 12});
  RoutedLayer routed;
  const auto dynamic = NewDynamicReplicaChoice();
  NewDealtRouting(placement, *dynamic, 1, kAll)->Count(batch, WholeBatch(batch), Layer(0), &routed);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(3, 3, 2, 2, 2, 2, 2, 1));
  EXPECT_EQ(routed.pairs, 17);
  EXPECT_THAT(routed.tokens, ElementsAre(8, 0, 4, 0));
  // f = 1/8: floor(2.85 + 0.125) = 2, then floor(4.28 + 0.125) less 2.
  EXPECT_EQ(routed.tokens_between[0 * 4 + 0], 2);
  EXPECT_EQ(routed.tokens_between[2 * 4 + 0], 4 - 2);
  EXPECT_EQ(routed.tokens_between[0 * 4 + 3], 2);
  EXPECT_EQ(routed.tokens_between[2 * 4 + 3], 1);
  // What rank 0 computes comes from rank 0 and rank 2, about two to one.
  EXPECT_EQ(routed.pairs_between[0 * 4 + 0] + routed.pairs_between[2 * 4 + 0], 6);
  EXPECT_NEAR(routed.pairs_between[0 * 4 + 0], 6 * 8 / 12.0, 1);

  // lp: rank 3 has the 3 of expert 2, whatever is done; the other 14 fit on three ranks with at most ceil(14 / 3) = 5.
  const auto lp = NewLpReplicaChoice({});
  NewDealtRouting(placement, *lp, 1)->Count(batch, WholeBatch(batch), Layer(0), &routed);
  for (int rank = 0; rank < 4; ++rank) {
    EXPECT_LE(routed.tokens_per_slot[2 * rank] + routed.tokens_per_slot[2 * rank + 1], 5) << rank;
  }
  EXPECT_EQ(routed.tokens_per_slot[6], 3);  // The second replica on a rank is not used.
  EXPECT_EQ(routed.pairs, 17);
}

TEST(DealtRoutingOfCounts, PiecesAddUpToTheBatch) {
  RandomStream random(14, "dealt_routing_test");
  const PlacementShape shape{.layers = 1, .experts = 20, .slots = 48, .ranks = 8, .nodes = 2};
  const Placement placement = DrawPlacement(shape, &random);
  std::vector<uint32_t> counts;
  for (int e = 0; e < 20; ++e) counts.push_back(static_cast<uint32_t>(random.Below(200)));
  const StepBatch batch = CountsOnly(counts, {0, 30, 30, 80, 100, 150, 170, 200, 240});
  const std::unique_ptr<PerCallReplicaChoice> choices[] = {NewDynamicReplicaChoice(), NewRoundRobinReplicaChoice(true),
                                                           NewLpReplicaChoice({})};
  for (const auto& choice : choices) {
    const auto routing = NewDealtRouting(placement, *choice, 1, kAll);
    TokenRange first = WholeBatch(batch), second = first;
    for (size_t s = 0; s < first.end.size(); ++s) {
      first.end[s] = second.begin[s] = first.begin[s] + (first.end[s] - first.begin[s]) / 3;
    }
    RoutedLayer whole, a, b;
    routing->Count(batch, WholeBatch(batch), Layer(0), &whole);
    routing->Count(batch, first, Layer(0), &a);
    routing->Count(batch, second, Layer(0), &b);
    EXPECT_EQ(whole.pairs, std::accumulate(counts.begin(), counts.end(), int64_t{0}));
    EXPECT_EQ(a.pairs + b.pairs, whole.pairs);
    for (size_t i = 0; i < whole.tokens_per_slot.size(); ++i) {
      EXPECT_EQ(a.tokens_per_slot[i] + b.tokens_per_slot[i], whole.tokens_per_slot[i]);
    }
    for (size_t i = 0; i < whole.tokens_between.size(); ++i) {
      EXPECT_EQ(a.tokens_between[i] + b.tokens_between[i], whole.tokens_between[i]);
      EXPECT_EQ(a.pairs_between[i] + b.pairs_between[i], whole.pairs_between[i]);
    }
  }
}

// Tokens drawn with independent experts: what is counted of them is within 4 standard errors of the expectation.
TEST(DealtRoutingOfCounts, AgreesWithDrawnTokens) {
  constexpr int kExperts = 20, kTokens = 240, kRounds = 1000;
  RandomStream random(15, "dealt_routing_test");
  const PlacementShape shape{.layers = 1, .experts = kExperts, .slots = 48, .ranks = 8, .nodes = 2};
  const Placement placement = DrawPlacement(shape, &random);
  std::vector<uint32_t> counts;
  for (int e = 0; e < kExperts; ++e) counts.push_back(static_cast<uint32_t>(10 + random.Below(100)));
  const std::vector<int32_t> rank_begin = {0, 30, 60, 90, 120, 150, 180, 210, 240};
  const auto choice = NewDynamicReplicaChoice();
  const auto routing = NewDealtRouting(placement, *choice, 1);
  std::vector<double> received(8), expected(8);
  RoutedLayer routed;
  std::vector<uint8_t> ids(kTokens * kExperts), valid_count(kTokens);
  for (int round = 0; round < kRounds; ++round) {
    for (size_t t = 0; t < valid_count.size(); ++t) {
      valid_count[t] = 0;
      for (size_t e = 0; e < counts.size(); ++e) {
        if (random.Unit() * kTokens < counts[e]) ids[t * kExperts + valid_count[t]++] = static_cast<uint8_t>(e);
      }
    }
    StepBatch batch;
    batch.index = round;
    batch.tokens = kTokens;
    batch.rank_begin = rank_begin;
    batch.layers = 1;
    batch.top_k = kExperts;
    batch.ids = reinterpret_cast<const std::byte*>(ids.data());
    batch.valid_count = valid_count.data();
    routing->Count(batch, WholeBatch(batch), Layer(0), &routed);
    for (size_t i = 0; i < routed.tokens_between.size(); ++i) received[i % 8] += routed.tokens_between[i];
  }
  const StepBatch without_ids = CountsOnly(counts, rank_begin);
  routing->Count(without_ids, WholeBatch(without_ids), Layer(0), &routed);
  for (size_t i = 0; i < routed.tokens_between.size(); ++i) expected[i % 8] += routed.tokens_between[i];
  for (size_t d = 0; d < 8; ++d) {
    EXPECT_NEAR(received[d] / kRounds, expected[d], 1 + 4 * std::sqrt(expected[d] / kRounds)) << "rank " << d;
  }
}

}  // namespace
}  // namespace epsim
