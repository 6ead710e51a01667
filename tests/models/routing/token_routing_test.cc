// Question: does every instruction set count what the definition says, whatever the shape?

#include "models/routing/token_routing.h"

#include <algorithm>
#include <cstdint>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;

// What TokenRouting.h says, with sets.
template <typename Id>
RoutedLayer ByDefinition(const PlacementShape& shape, const ReplicaTable& table, const StepBatch& batch,
                         const TokenRange& range, Layer layer) {
  const size_t ranks = static_cast<size_t>(shape.ranks), nodes = static_cast<size_t>(shape.nodes);
  RoutedLayer routed;
  routed.tokens_per_slot.resize(static_cast<size_t>(shape.slots));
  routed.tokens_between.resize(ranks * ranks);
  routed.pairs_between.resize(ranks * ranks);
  routed.tokens_to_node.resize(ranks * nodes);
  routed.tokens.resize(ranks);
  const Id* ids = reinterpret_cast<const Id*>(batch.layer_ids(static_cast<int>(layer)));
  for (size_t s = 0; s < ranks; ++s) {
    for (int t = range.begin[s]; t < range.end[s]; ++t) {
      ++routed.tokens[s];
      const int valid =
          batch.valid_count == nullptr
              ? batch.top_k
              : batch.valid_count[Index(layer) * static_cast<size_t>(batch.tokens) + static_cast<size_t>(t)];
      std::set<Rank> visited;
      std::set<Node> visited_nodes;
      for (int k = 0; k < valid; ++k) {
        const Slot slot{table.of(layer, Rank(static_cast<int32_t>(s)))[ids[t * batch.top_k + k]]};
        const Rank d = shape.rank_of(slot);
        ++routed.tokens_per_slot[Index(slot)];
        ++routed.pairs_between[s * ranks + Index(d)];
        ++routed.pairs;
        visited.insert(d);
        visited_nodes.insert(shape.node_of(d));
      }
      for (const Rank d : visited) ++routed.tokens_between[s * ranks + Index(d)];
      for (const Node n : visited_nodes) ++routed.tokens_to_node[s * nodes + Index(n)];
    }
  }
  return routed;
}

struct Case {
  int ranks, experts, slots_per_rank, top_k;
  int tokens_per_rank;  // On average.
  int id_bytes;
  bool ragged;

  // As few as there can be of at most eight ranks each, all of one size.
  int nodes() const {
    for (int size = 8; size > 1; --size) {
      if (ranks % size == 0) return ranks / size;
    }
    return ranks;
  }
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << "ranks:" << c.ranks << " experts:" << c.experts << " slots_per_rank:" << c.slots_per_rank
       << " top_k:" << c.top_k << " tokens_per_rank:" << c.tokens_per_rank << " id_bytes:" << c.id_bytes
       << (c.ragged ? " ragged" : "");
}

// A batch that owns its arrays, with random ids, and a random table in which half of the experts have one slot for all.
template <typename Id>
struct RandomBatch {
  explicit RandomBatch(const Case& c) : random(7, "token_routing_test") {
    shape.layers = 2;
    shape.experts = c.experts;
    shape.ranks = c.ranks;
    shape.nodes = c.nodes();
    shape.slots = c.ranks * c.slots_per_rank;
    const uint64_t slots = static_cast<uint64_t>(shape.slots);
    table = {shape.layers, shape.ranks, shape.experts, {}};
    for (int l = 0; l < shape.layers; ++l) {
      std::vector<uint16_t> same;
      for (int e = 0; e < c.experts; ++e) same.push_back(static_cast<uint16_t>(random.Below(slots)));
      for (int s = 0; s < c.ranks; ++s) {
        for (size_t e = 0; e < same.size(); ++e) {
          table.slot.push_back(e % 2 == 0 ? same[e] : static_cast<uint16_t>(random.Below(slots)));
        }
      }
    }
    // Rank 1 of every four has no tokens; the others from none to twice the average.
    batch.rank_begin = {0};
    for (int s = 0; s < c.ranks; ++s) {
      const uint64_t tokens = s % 4 == 1 ? 0 : random.Below(2 * static_cast<uint64_t>(c.tokens_per_rank) + 1);
      batch.tokens += static_cast<int>(tokens);
      batch.rank_begin.push_back(batch.tokens);
    }
    batch.layers = shape.layers;
    batch.top_k = c.top_k;
    batch.id_bytes = static_cast<int>(sizeof(Id));
    for (int i = 0; i < batch.layers * batch.tokens; ++i) {
      std::set<Id> drawn;
      while (drawn.size() < static_cast<size_t>(c.top_k)) {
        // Small ids are likelier, so that some experts are hot.
        const uint64_t below = 1 + random.Below(static_cast<uint64_t>(c.experts));
        const Id id = static_cast<Id>(random.Below(below));
        if (drawn.insert(id).second) ids.push_back(id);
      }
      // One token in eight of the last half of the ranks lacks some.  What follows the valid ids is any id.
      const bool lacks = c.ragged && i % batch.tokens > batch.tokens / 2 && random.Below(8) == 0;
      valid_count.push_back(static_cast<uint8_t>(lacks ? random.Below(static_cast<uint64_t>(c.top_k)) : c.top_k));
    }
    batch.ids = reinterpret_cast<const std::byte*>(ids.data());
    batch.layer_stride = static_cast<size_t>(batch.tokens * c.top_k) * sizeof(Id);
    if (c.ragged) batch.valid_count = valid_count.data();
  }

  RandomStream random;
  PlacementShape shape;
  ReplicaTable table;
  std::vector<Id> ids;
  std::vector<uint8_t> valid_count;
  StepBatch batch;
};

// Everything, or what was asked for.
constexpr RoutingDetail kAll{.pairs_between = true, .tokens_to_node = true};
constexpr RoutingDetail kDetails[] = {{}, kAll, {.pairs_between = true}, {.tokens_to_node = true}};

// Some of each rank's tokens: all of every third rank, none of the next, part of the others.
TokenRange SomeTokens(const StepBatch& batch) {
  TokenRange range = WholeBatch(batch);
  for (size_t s = 0; s < range.begin.size(); ++s) {
    const int32_t tokens = range.end[s] - range.begin[s];
    if (s % 3 == 1) range.begin[s] += tokens / 4;
    if (s % 3 == 1) range.end[s] -= tokens / 3;
    if (s % 3 == 2) range.begin[s] = range.end[s];
  }
  return range;
}

template <typename Id>
void ExpectAllAgree(const Case& c) {
  const RandomBatch<Id> random(c);
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(InstructionSetName(set));
    RoutedLayer routed;  // Used again: what a layer leaves must not reach the next.
    for (const RoutingDetail& detail : kDetails) {
      const auto routing = NewTokenRouting(random.shape, random.table, detail, set);
      for (const TokenRange& range : {WholeBatch(random.batch), SomeTokens(random.batch)}) {
        for (int l = 0; l < random.shape.layers; ++l) {
          const RoutedLayer expected = ByDefinition<Id>(random.shape, random.table, random.batch, range, Layer(l));
          routing->Count(random.batch, range, Layer(l), &routed);
          EXPECT_THAT(routed.tokens_per_slot, Eq(expected.tokens_per_slot));
          EXPECT_THAT(routed.tokens_between, Eq(expected.tokens_between));
          EXPECT_THAT(routed.pairs_between, Eq(detail.pairs_between ? expected.pairs_between : std::vector<int32_t>()));
          EXPECT_THAT(routed.tokens_to_node,
                      Eq(detail.tokens_to_node ? expected.tokens_to_node : std::vector<int32_t>()));
          EXPECT_THAT(routed.tokens, Eq(expected.tokens));
          EXPECT_EQ(routed.pairs, expected.pairs);
          EXPECT_GT(routed.pairs, 0);
        }
      }
    }
  }
}

class TokenRoutingShapes : public ::testing::TestWithParam<Case> {};

TEST_P(TokenRoutingShapes, EveryInstructionSetCountsByDefinition) {
  if (GetParam().id_bytes == 1) {
    ExpectAllAgree<uint8_t>(GetParam());
  } else {
    ExpectAllAgree<uint16_t>(GetParam());
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, TokenRoutingShapes,
    ::testing::Values(
        // One rank; ranks that are and are not powers of two; the shape of the benchmark.
        Case{1, 8, 8, 2, 300, 1, false}, Case{2, 8, 4, 2, 40, 1, false}, Case{3, 60, 21, 4, 100, 1, false},
        Case{7, 160, 24, 6, 50, 1, false}, Case{63, 256, 5, 8, 30, 1, false}, Case{64, 256, 5, 8, 128, 1, false},
        // Members fill words of 64, or one more.
        Case{8, 64, 9, 8, 60, 1, false}, Case{8, 65, 9, 8, 60, 1, false}, Case{8, 128, 17, 4, 60, 1, false},
        Case{8, 129, 17, 4, 60, 1, false}, Case{8, 192, 25, 7, 60, 1, false}, Case{8, 193, 25, 7, 60, 1, false},
        Case{8, 255, 33, 8, 60, 1, false}, Case{65, 256, 4, 8, 40, 1, false}, Case{128, 256, 2, 8, 40, 1, false},
        Case{129, 256, 2, 8, 40, 1, false}, Case{192, 256, 2, 5, 30, 1, false}, Case{256, 256, 1, 8, 30, 1, false},
        // Bytes that count tokens overflow at 256: blocks of many sizes.
        Case{2, 9, 6, 8, 1000, 1, false}, Case{4, 256, 80, 8, 255, 1, false}, Case{4, 256, 80, 3, 700, 1, false},
        Case{70, 10, 1, 8, 500, 1, false}, Case{4, 256, 80, 1, 200, 1, false},
        // Small sources, as in decode.
        Case{64, 256, 5, 8, 1, 1, false}, Case{64, 256, 5, 8, 9, 1, false}, Case{100, 256, 3, 8, 9, 1, false},
        // More ids a token, or ranks, than the fast path takes.
        Case{16, 256, 20, 9, 50, 1, false}, Case{8, 200, 30, 64, 40, 1, false}, Case{257, 256, 1, 8, 20, 1, false},
        // Two-byte ids.
        Case{64, 384, 7, 8, 40, 2, false}, Case{96, 384, 6, 8, 40, 2, false}, Case{8, 512, 70, 10, 60, 2, false},
        Case{1024, 600, 1, 8, 6, 2, false}, Case{40, 256, 8, 8, 40, 2, false}, Case{6, 65535, 10922, 8, 40, 2, false},
        // Tokens with fewer than top_k ids.
        Case{1, 32, 32, 4, 50, 1, true}, Case{64, 256, 5, 8, 60, 1, true}, Case{72, 256, 4, 8, 60, 1, true},
        Case{64, 512, 9, 10, 40, 2, true}, Case{320, 384, 2, 8, 20, 2, true}));

// Six experts on three ranks of three slots: rank 0 holds 0, 1 and a copy of 5; rank 1 holds 2, 3, 1; rank 2 holds 4,
// 5, 0.
class WorkedExample : public ::testing::TestWithParam<InstructionSet> {
 protected:
  WorkedExample() {
    shape_.layers = 1;
    shape_.experts = 6;
    shape_.slots = 9;
    shape_.ranks = 3;
    table_ = {1, 3, 6, {0, 1, 3, 4, 6, 2, 0, 5, 3, 4, 6, 7, 8, 1, 3, 4, 6, 7}};
    batch_.layers = 1;
    batch_.top_k = 2;
  }

  PlacementShape shape_;
  ReplicaTable table_;
  StepBatch batch_;
};

TEST_P(WorkedExample, ATokenGoesOnceToEachRankAndTheDiagonalStays) {
  // Rank 0: {0, 1} both at home, {5, 2} home and rank 1.  Rank 1: none.  Rank 2: {0, 4} both at home, {4, 5} both at
  // home, {1, 3} ranks 0 and 1.
  const std::vector<uint8_t> ids = {0, 1, 5, 2, 0, 4, 4, 5, 1, 3};
  batch_.tokens = 5;
  batch_.rank_begin = {0, 2, 2, 5};
  batch_.ids = reinterpret_cast<const std::byte*>(ids.data());
  batch_.layer_stride = ids.size();
  RoutedLayer routed;
  NewTokenRouting(shape_, table_, kAll, GetParam())->Count(batch_, WholeBatch(batch_), Layer(0), &routed);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(1, 2, 1, 1, 1, 0, 2, 1, 1));
  EXPECT_THAT(routed.tokens_between, ElementsAre(2, 1, 0,  //
                                                 0, 0, 0,  //
                                                 1, 1, 2));
  EXPECT_THAT(routed.pairs_between, ElementsAre(3, 1, 0,  //
                                                0, 0, 0,  //
                                                1, 1, 4));
  EXPECT_THAT(routed.tokens_to_node, ElementsAre(2, 0, 3));  // One node: every token once.
  EXPECT_THAT(routed.tokens, ElementsAre(2, 0, 3));
  EXPECT_EQ(routed.pairs, 10);
}

TEST_P(WorkedExample, ATokenGoesOnceToEachNode) {
  // Two nodes of two ranks, an expert each.  {0, 1, 2}: both of node 0, one of node 1; {2, 3, 0} from rank 3.
  PlacementShape shape;
  shape.layers = 1;
  shape.experts = shape.slots = shape.ranks = 4;
  shape.nodes = 2;
  const ReplicaTable table{1, 4, 4, {0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3}};
  const std::vector<uint8_t> ids = {0, 1, 2, 2, 3, 0};
  batch_.top_k = 3;
  batch_.tokens = 2;
  batch_.rank_begin = {0, 1, 1, 1, 2};
  batch_.ids = reinterpret_cast<const std::byte*>(ids.data());
  RoutedLayer routed;
  NewTokenRouting(shape, table, kAll, GetParam())->Count(batch_, WholeBatch(batch_), Layer(0), &routed);
  EXPECT_THAT(routed.tokens_to_node, ElementsAre(1, 1, 0, 0, 0, 0, 1, 1));
  EXPECT_THAT(routed.pairs_between, ElementsAre(1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1));
}

TEST_P(WorkedExample, ABatchWithoutTokensCountsNothing) {
  const uint8_t none = 0;
  batch_.rank_begin = {0, 0, 0, 0};
  batch_.ids = reinterpret_cast<const std::byte*>(&none);
  RoutedLayer routed;
  routed.pairs = 3;
  NewTokenRouting(shape_, table_, kAll, GetParam())->Count(batch_, WholeBatch(batch_), Layer(0), &routed);
  EXPECT_THAT(routed.tokens_per_slot, Eq(std::vector<int32_t>(9, 0)));
  EXPECT_THAT(routed.tokens_between, Eq(std::vector<int32_t>(9, 0)));
  EXPECT_THAT(routed.pairs_between, Eq(std::vector<int32_t>(9, 0)));
  EXPECT_THAT(routed.tokens_to_node, ElementsAre(0, 0, 0));
  EXPECT_EQ(routed.pairs, 0);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, WorkedExample, ::testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(InstructionSetName(info.param)); });

// More tokens only add: the counts of ranges that make up a batch add up to the counts of the batch.
class Ranges : public ::testing::TestWithParam<InstructionSet> {
 protected:
  // Cuts each rank's tokens into three, at random.
  static std::vector<TokenRange> Cut(const StepBatch& batch, RandomStream* random) {
    std::vector<TokenRange> ranges(3, WholeBatch(batch));
    for (size_t s = 0; s + 1 < batch.rank_begin.size(); ++s) {
      const auto tokens = static_cast<uint64_t>(batch.rank_begin[s + 1] - batch.rank_begin[s]);
      const auto a = static_cast<int32_t>(random->Below(tokens + 1)),
                 b = static_cast<int32_t>(random->Below(tokens + 1));
      ranges[0].end[s] = ranges[1].begin[s] = batch.rank_begin[s] + std::min(a, b);
      ranges[1].end[s] = ranges[2].begin[s] = batch.rank_begin[s] + std::max(a, b);
    }
    return ranges;
  }

  static void Add(const std::vector<int32_t>& more, std::vector<int32_t>* sum) {
    sum->resize(more.size());
    for (size_t i = 0; i < more.size(); ++i) (*sum)[i] += more[i];
  }

  void ExpectSum(const PlacementShape& shape, const ReplicaTable& table, const StepBatch& batch) {
    RandomStream random(5, "token_routing_test/ranges");
    const auto routing = NewTokenRouting(shape, table, kAll, GetParam());
    for (int round = 0; round < 4; ++round) {
      RoutedLayer whole, sum, part;
      routing->Count(batch, WholeBatch(batch), Layer(1), &whole);
      for (const TokenRange& range : Cut(batch, &random)) {
        routing->Count(batch, range, Layer(1), &part);
        Add(part.tokens_per_slot, &sum.tokens_per_slot);
        Add(part.tokens_between, &sum.tokens_between);
        Add(part.pairs_between, &sum.pairs_between);
        Add(part.tokens_to_node, &sum.tokens_to_node);
        Add(part.tokens, &sum.tokens);
        sum.pairs += part.pairs;
      }
      EXPECT_THAT(sum.tokens_per_slot, Eq(whole.tokens_per_slot));
      EXPECT_THAT(sum.tokens_between, Eq(whole.tokens_between));
      EXPECT_THAT(sum.pairs_between, Eq(whole.pairs_between));
      EXPECT_THAT(sum.tokens_to_node, Eq(whole.tokens_to_node));
      EXPECT_THAT(sum.tokens, Eq(whole.tokens));
      EXPECT_EQ(sum.pairs, whole.pairs);
    }
  }
};

TEST_P(Ranges, OfIdsAddUpToTheBatch) {
  const RandomBatch<uint8_t> few({4, 256, 80, 8, 400, 1, false}), many({70, 256, 4, 8, 60, 1, true});
  ExpectSum(few.shape, few.table, few.batch);
  ExpectSum(many.shape, many.table, many.batch);
}

TEST_P(Ranges, OfCountsAddUpToTheBatch) {
  RandomBatch<uint8_t> random({20, 64, 6, 4, 37, 1, false});
  std::vector<uint32_t> counts;
  for (int i = 0; i < 2 * 64; ++i) counts.push_back(static_cast<uint32_t>(random.random.Below(200)));
  random.batch.ids = nullptr;
  random.batch.counts = counts.data();
  ExpectSum(random.shape, random.table, random.batch);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, Ranges, ::testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(InstructionSetName(info.param)); });

TEST(TokenRoutingDeathTest, RefusesATableOfAnotherShape) {
  PlacementShape shape;
  shape.layers = 1;
  shape.experts = 2;
  shape.slots = 2;
  shape.ranks = 2;
  const ReplicaTable other_ranks{1, 1, 2, {0, 1}};
  EXPECT_DEATH(NewTokenRouting(shape, other_ranks), "table.ranks == shape.ranks");
  const ReplicaTable beyond{1, 2, 2, {0, 1, 0, 2}};
  EXPECT_DEATH(NewTokenRouting(shape, beyond), "slot < shape_.slots");
}

TEST(TokenRoutingDeathTest, RefusesARangeBeyondTheTokensOfARank) {
  const RandomBatch<uint8_t> random({4, 16, 4, 2, 10, 1, false});
  const auto routing = NewTokenRouting(random.shape, random.table);
  TokenRange range = WholeBatch(random.batch);
  ++range.end[2];
  RoutedLayer routed;
  EXPECT_DEATH(routing->Count(random.batch, range, Layer(0), &routed), "batch.rank_begin");
}

}  // namespace
}  // namespace epsim
