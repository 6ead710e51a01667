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
RoutedLayer ByDefinition(const PlacementShape& shape, const ReplicaTable& table, const StepBatch& batch, Layer layer) {
  RoutedLayer routed;
  routed.tokens_per_slot.resize(static_cast<size_t>(shape.slots));
  routed.tokens_between.resize(static_cast<size_t>(shape.ranks) * static_cast<size_t>(shape.ranks));
  const Id* ids = reinterpret_cast<const Id*>(batch.layer_ids(static_cast<int>(layer)));
  for (int s = 0; s < shape.ranks; ++s) {
    for (int t = batch.rank_begin[static_cast<size_t>(s)]; t < batch.rank_begin[static_cast<size_t>(s) + 1]; ++t) {
      const int valid =
          batch.valid_count == nullptr
              ? batch.top_k
              : batch.valid_count[Index(layer) * static_cast<size_t>(batch.tokens) + static_cast<size_t>(t)];
      std::set<Rank> visited;
      for (int k = 0; k < valid; ++k) {
        const Slot slot{table.of(layer, Rank(s))[ids[t * batch.top_k + k]]};
        ++routed.tokens_per_slot[Index(slot)];
        ++routed.pairs;
        visited.insert(shape.rank_of(slot));
      }
      for (const Rank d : visited) ++routed.tokens_between[static_cast<size_t>(s * shape.ranks) + Index(d)];
    }
  }
  return routed;
}

struct Case {
  int ranks, experts, slots_per_rank, top_k;
  int tokens_per_rank;  // On average.
  int id_bytes;
  bool ragged;
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

template <typename Id>
void ExpectAllAgree(const Case& c) {
  const RandomBatch<Id> random(c);
  for (const InstructionSet set : SupportedInstructionSets()) {
    SCOPED_TRACE(InstructionSetName(set));
    const auto routing = NewTokenRouting(random.shape, random.table, set);
    RoutedLayer routed;  // Used again: what a layer leaves must not reach the next.
    for (int l = 0; l < random.shape.layers; ++l) {
      const RoutedLayer expected = ByDefinition<Id>(random.shape, random.table, random.batch, Layer(l));
      routing->Count(random.batch, Layer(l), &routed);
      EXPECT_THAT(routed.tokens_per_slot, Eq(expected.tokens_per_slot));
      EXPECT_THAT(routed.tokens_between, Eq(expected.tokens_between));
      EXPECT_EQ(routed.pairs, expected.pairs);
      EXPECT_GT(routed.pairs, 0);
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
  NewTokenRouting(shape_, table_, GetParam())->Count(batch_, Layer(0), &routed);
  EXPECT_THAT(routed.tokens_per_slot, ElementsAre(1, 2, 1, 1, 1, 0, 2, 1, 1));
  EXPECT_THAT(routed.tokens_between, ElementsAre(2, 1, 0,  //
                                                 0, 0, 0,  //
                                                 1, 1, 2));
  EXPECT_EQ(routed.pairs, 10);
}

TEST_P(WorkedExample, ABatchWithoutTokensCountsNothing) {
  const uint8_t none = 0;
  batch_.rank_begin = {0, 0, 0, 0};
  batch_.ids = reinterpret_cast<const std::byte*>(&none);
  RoutedLayer routed;
  routed.pairs = 3;
  NewTokenRouting(shape_, table_, GetParam())->Count(batch_, Layer(0), &routed);
  EXPECT_THAT(routed.tokens_per_slot, Eq(std::vector<int32_t>(9, 0)));
  EXPECT_THAT(routed.tokens_between, Eq(std::vector<int32_t>(9, 0)));
  EXPECT_EQ(routed.pairs, 0);
}

INSTANTIATE_TEST_SUITE_P(InstructionSets, WorkedExample, ::testing::ValuesIn(SupportedInstructionSets()),
                         [](const auto& info) { return std::string(InstructionSetName(info.param)); });

// More tokens only add: the counts of a batch are the sum of the counts of its two halves.
TEST(TokenRoutingAdds, OverTheTokensOfASource) {
  RandomBatch<uint8_t> random({4, 256, 80, 8, 400, 1, false});
  const auto routing = NewTokenRouting(random.shape, random.table);
  RoutedLayer whole;
  routing->Count(random.batch, Layer(1), &whole);

  std::vector<int32_t> between(whole.tokens_between.size()), per_slot(whole.tokens_per_slot.size());
  const std::vector<int32_t> begin = random.batch.rank_begin;
  for (const int half : {0, 1}) {
    // The other half's tokens are left out by moving the ids of this half together.
    std::vector<uint8_t> ids;
    StepBatch part = random.batch;
    part.tokens = 0;
    part.rank_begin = {0};
    for (size_t s = 0; s + 1 < begin.size(); ++s) {
      const int32_t middle = (begin[s] + begin[s + 1]) / 2;
      const int32_t first = half == 0 ? begin[s] : middle, last = half == 0 ? middle : begin[s + 1];
      const uint8_t* layer = random.ids.data() + random.batch.layer_stride;
      ids.insert(ids.end(), layer + first * 8, layer + last * 8);
      part.rank_begin.push_back(part.tokens += last - first);
    }
    part.layer_stride = 0;
    part.ids = reinterpret_cast<const std::byte*>(ids.data());
    RoutedLayer routed;
    routing->Count(part, Layer(1), &routed);
    for (size_t i = 0; i < between.size(); ++i) between[i] += routed.tokens_between[i];
    for (size_t i = 0; i < per_slot.size(); ++i) per_slot[i] += routed.tokens_per_slot[i];
  }
  EXPECT_THAT(between, Eq(whole.tokens_between));
  EXPECT_THAT(per_slot, Eq(whole.tokens_per_slot));
}

TEST(TokenRoutingDeathTest, RefusesATableOfAnotherShape) {
  PlacementShape shape;
  shape.layers = 1;
  shape.experts = 2;
  shape.slots = 2;
  shape.ranks = 2;
  const ReplicaTable other_ranks{1, 1, 2, {0, 1}};
  EXPECT_DEATH(NewTokenRouting(shape, other_ranks), "table.ranks == shape.ranks");
  const ReplicaTable beyond{1, 2, 2, {0, 1, 0, 2}};
  EXPECT_DEATH(NewTokenRouting(shape, beyond), "slot < shape.slots");
}

}  // namespace
}  // namespace epsim
