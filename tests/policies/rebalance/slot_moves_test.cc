#include "policies/rebalance/slot_moves.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// A place in a staging area is no slot, and neither is an expert.
static_assert(!std::is_convertible_v<StagedExpert, Slot> && !std::is_convertible_v<Slot, StagedExpert>);
static_assert(!std::is_convertible_v<StagedExpert, LogicalExpert>);

int Number(StagedExpert staged) { return static_cast<int>(staged); }

// 256 experts on 8 ranks a node: each stages 32, far more than the 9 slots it has.
TEST(HostStaging, ARankStagesMoreExpertsThanItHasSlots) {
  const PlacementShape shape{.layers = 1, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4};
  const HostStaging staging(shape);
  ASSERT_EQ(shape.slots_per_rank(), 9);
  EXPECT_EQ(staging.staged_per_rank(), 32);
  EXPECT_EQ(staging.stager(Node{0}, LogicalExpert{0}), Rank{0});
  EXPECT_EQ(staging.stager(Node{0}, LogicalExpert{31}), Rank{0});
  EXPECT_EQ(staging.place(LogicalExpert{31}), StagedExpert{31});
  EXPECT_EQ(staging.stager(Node{0}, LogicalExpert{32}), Rank{1});
  EXPECT_EQ(staging.place(LogicalExpert{32}), StagedExpert{0});
  EXPECT_EQ(staging.stager(Node{1}, LogicalExpert{32}), Rank{9});
  EXPECT_EQ(staging.stager(Node{3}, LogicalExpert{255}), Rank{31});
  EXPECT_EQ(staging.place(LogicalExpert{255}), StagedExpert{31});
}

// 10 experts on 4 ranks of a node: 3 each, and the last rank stages what is left, one.  9: nothing is left for it.
TEST(HostStaging, TheLastRankOfANodeStagesTheRest) {
  const auto staged_by = [](int experts, Node node) {
    const HostStaging staging({.layers = 1, .experts = experts, .slots = 16, .ranks = 8, .nodes = 2});
    std::vector<int> count(8);
    for (int expert = 0; expert < experts; ++expert) ++count[Index(staging.stager(node, LogicalExpert(expert)))];
    return count;
  };
  EXPECT_THAT(staged_by(10, Node{0}), ElementsAre(3, 3, 3, 1, 0, 0, 0, 0));
  EXPECT_THAT(staged_by(10, Node{1}), ElementsAre(0, 0, 0, 0, 3, 3, 3, 1));
  EXPECT_THAT(staged_by(9, Node{1}), ElementsAre(0, 0, 0, 0, 3, 3, 3, 0));
}

// Whatever the sizes, a node holds every expert once, and no area overflows.
TEST(HostStaging, EveryNodeHoldsEveryExpertOnce) {
  for (int experts = 1; experts <= 40; ++experts) {
    for (int ranks_per_node = 1; ranks_per_node <= 9; ++ranks_per_node) {
      const PlacementShape shape{
          .layers = 1, .experts = experts, .slots = 3 * ranks_per_node * 40, .ranks = 3 * ranks_per_node, .nodes = 3};
      const HostStaging staging(shape);
      for (int node = 0; node < 3; ++node) {
        std::set<std::pair<Rank, StagedExpert>> places;
        for (int expert = 0; expert < experts; ++expert) {
          const Rank stager = staging.stager(Node(node), LogicalExpert(expert));
          const StagedExpert place = staging.place(LogicalExpert(expert));
          ASSERT_EQ(shape.node_of(stager), Node(node));
          ASSERT_LT(Number(place), staging.staged_per_rank());
          ASSERT_TRUE(places.emplace(stager, place).second) << "expert " << expert << " of " << experts;
        }
      }
      ASSERT_LT(ranks_per_node * (staging.staged_per_rank() - 1), experts);  // No larger than it has to be.
    }
  }
}

Placement Held(const PlacementShape& shape, const std::vector<int>& experts_of_slots) {
  std::vector<LogicalExpert> experts;
  for (int expert : experts_of_slots) experts.push_back(LogicalExpert(expert));
  return Placement(shape, std::move(experts));
}

// (slot, expert, way, source slot).
using Move = std::tuple<int, int, MoveWay, int>;

struct Found {
  std::vector<Move> moves;
  std::vector<int32_t> sent;
};

Found Find(const PlacementShape& shape, const std::vector<int>& before, const std::vector<int>& after,
           std::vector<int32_t> sent = {}, const std::vector<char>& away = {}) {
  sent.resize(shape.ranks);
  Found found;
  for (const SlotMove& move : FindSlotMoves(Held(shape, before), Held(shape, after), Layer{0}, /*from_host=*/false,
                                            absl::MakeSpan(sent), away)) {
    found.moves.emplace_back(static_cast<int>(move.slot), static_cast<int>(move.expert), move.way,
                             static_cast<int>(move.source));
  }
  found.sent = sent;
  return found;
}

// 2 slots a rank; ranks 0 and 1 are node 0, 2 and 3 node 1.
const PlacementShape kTwoNodes{.layers = 1, .experts = 4, .slots = 8, .ranks = 4, .nodes = 2};

// Expert 1 for slot 0 is beside it, expert 0 for slot 2 on the node's other rank, and for slot 4 on another node.
TEST(FindSlotMoves, TakesTheNearestReplica) {
  const Found found = Find(kTwoNodes, {0, 1, 2, 3, 1, 2, 1, 2}, {1, 1, 0, 3, 0, 2, 1, 2});
  EXPECT_THAT(found.moves, ElementsAre(Move(0, 1, MoveWay::kGpu, 1), Move(2, 0, MoveWay::kNode, 0),
                                       Move(4, 0, MoveWay::kNetwork, 0)));
  EXPECT_THAT(found.sent, ElementsAre(2, 0, 0, 0));
}

// Expert 3 for slot 5: rank 3 of its node has it, and so have two idle ranks of node 0.
TEST(FindSlotMoves, ANearRankGoesBeforeAnIdleOne) {
  const Found found = Find(kTwoNodes, {0, 3, 1, 3, 2, 0, 3, 1}, {0, 3, 1, 3, 2, 3, 3, 1}, {0, 0, 0, 1000});
  EXPECT_THAT(found.moves, ElementsAre(Move(5, 3, MoveWay::kNode, 6)));
  EXPECT_THAT(found.sent, ElementsAre(0, 0, 0, 1001));
}

TEST(FindSlotMoves, SlotsThatKeepTheirExpertStay) {
  EXPECT_THAT(Find(kTwoNodes, {0, 1, 2, 3, 0, 1, 2, 3}, {0, 1, 2, 3, 0, 1, 2, 3}).moves, IsEmpty());
  // Nor does one that becomes empty; one that was empty gets its expert.
  const Found found = Find(kTwoNodes, {0, 1, 2, 3, -1, 1, 2, 3}, {0, 1, 2, 3, 0, -1, 2, 3});
  EXPECT_THAT(found.moves, ElementsAre(Move(4, 0, MoveWay::kNetwork, 0)));
}

const PlacementShape kOneNode{.layers = 1, .experts = 4, .slots = 8, .ranks = 4, .nodes = 1};

// Ranks 0 and 1 have expert 0.  Both idle: the lower slot sends; then the one that has sent fewer; equal again.
TEST(FindSlotMoves, SendersTakeTurns) {
  const std::vector<int> before = {0, 1, 0, 2, 3, 3, 3, 3}, after = {0, 1, 0, 2, 0, 3, 0, 0};
  Found found = Find(kOneNode, before, after);
  EXPECT_THAT(found.moves,
              ElementsAre(Move(4, 0, MoveWay::kNode, 0), Move(6, 0, MoveWay::kNode, 2), Move(7, 0, MoveWay::kNode, 0)));
  EXPECT_THAT(found.sent, ElementsAre(2, 1, 0, 0));
  // Layers before this one count: rank 0 has sent two already.
  found = Find(kOneNode, before, after, {2, 0, 0, 0});
  EXPECT_THAT(found.moves,
              ElementsAre(Move(4, 0, MoveWay::kNode, 2), Move(6, 0, MoveWay::kNode, 2), Move(7, 0, MoveWay::kNode, 0)));
  EXPECT_THAT(found.sent, ElementsAre(3, 2, 0, 0));
}

// Of two on one rank the lower slot, be it for a copy in its memory or for another rank; copies do not count as sent.
TEST(FindSlotMoves, TheLowestSlotOfARankSends) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 6, .ranks = 2, .nodes = 1};
  const Found found = Find(shape, {1, 0, 0, 2, 2, 2}, {0, 0, 0, 0, 2, 1});
  EXPECT_THAT(found.moves,
              ElementsAre(Move(0, 0, MoveWay::kGpu, 1), Move(3, 0, MoveWay::kNode, 1), Move(5, 1, MoveWay::kNode, 0)));
  EXPECT_THAT(found.sent, ElementsAre(2, 0));
}

// 256 experts, 9 slots a rank: rank 9 (of node 1) gets expert 31 in its last slot and expert 200 in its first.  Both
// come from its own node's host, from places 31 and 200 - 6 * 32 = 8 of ranks 8 and 14, though rank 9 has a copy of 31.
TEST(FindSlotMoves, ComesFromTheHostOfItsNodeWhereToldSo) {
  const PlacementShape shape{.layers = 1, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4};
  std::vector<int> before(288);
  for (int slot = 0; slot < 288; ++slot) before[slot] = slot % 256;
  before[9 * 9] = 31;  // Rank 9 holds 31 82 .. 89.
  before[287] = 81;    // Which slot 81 held.
  std::vector<int> after = before;
  after[9 * 9] = 200;
  after[9 * 9 + 8] = 31;
  after[286] = 89;  // Which slot 89 held; was 30.
  std::vector<int32_t> sent(32);
  const std::vector<SlotMove> moves = FindSlotMoves(Held(shape, before), Held(shape, after), Layer{0},
                                                    /*from_host=*/true, absl::MakeSpan(sent));
  ASSERT_EQ(moves.size(), 3u);
  for (const SlotMove& move : moves) EXPECT_EQ(move.way, MoveWay::kHost);
  EXPECT_EQ(moves[0].slot, Slot{81});
  EXPECT_EQ(moves[0].expert, LogicalExpert{200});
  EXPECT_EQ(moves[0].stager, Rank{8 + 6});
  EXPECT_EQ(moves[0].staged, StagedExpert{8});
  EXPECT_EQ(moves[1].slot, Slot{89});
  EXPECT_EQ(moves[1].expert, LogicalExpert{31});
  EXPECT_EQ(moves[1].stager, Rank{8});
  EXPECT_EQ(moves[1].staged, StagedExpert{31});  // Beyond the 9 slots of rank 8.
  EXPECT_EQ(moves[2].slot, Slot{286});
  EXPECT_EQ(moves[2].stager, Rank{24 + 2});
  EXPECT_EQ(moves[2].staged, StagedExpert{89 - 64});
  EXPECT_THAT(sent, testing::Each(0));
}

// Rank 1 is away: expert 2 was on it alone and comes from the host; expert 0 comes from another node, because the near
// replica is lost.
TEST(FindSlotMoves, WhatWasLostComesFromTheHost) {
  const std::vector<int> before = {3, 1, 0, 2, 0, 1, 1, 1}, after = {0, 2, -1, -1, 0, 1, 3, 2};
  const Found found = Find(kTwoNodes, before, after, {}, {0, 1, 0, 0});
  EXPECT_THAT(found.moves, ElementsAre(Move(0, 0, MoveWay::kNetwork, 4), Move(1, 2, MoveWay::kHost, -1),
                                       Move(6, 3, MoveWay::kNetwork, 0), Move(7, 2, MoveWay::kHost, -1)));
  EXPECT_THAT(found.sent, ElementsAre(1, 0, 1, 0));
  // Each from its own node's: 4 experts on 2 ranks, expert 2 is the second rank's first.
  std::vector<int32_t> sent(4);
  const std::vector<SlotMove> moves = FindSlotMoves(Held(kTwoNodes, before), Held(kTwoNodes, after), Layer{0}, false,
                                                    absl::MakeSpan(sent), {0, 1, 0, 0});
  EXPECT_EQ(moves[1].stager, Rank{1});
  EXPECT_EQ(moves[3].stager, Rank{3});
  EXPECT_EQ(moves[3].staged, StagedExpert{0});
}

TEST(FindSlotMoves, LooksAtOneLayer) {
  PlacementShape shape = kOneNode;
  shape.layers = 2;
  const Placement before = Held(shape, {0, 1, 2, 3, 0, 1, 2, 3, /**/ 3, 2, 1, 0, 0, 0, 0, 0});
  const Placement after = Held(shape, {1, 0, 3, 2, 1, 0, 3, 2, /**/ 3, 2, 1, 0, 0, 0, 0, 2});
  std::vector<int32_t> sent(4);
  const std::vector<SlotMove> moves = FindSlotMoves(before, after, Layer{1}, false, absl::MakeSpan(sent));
  ASSERT_EQ(moves.size(), 1u);
  EXPECT_EQ(moves[0].slot, Slot{7});
  EXPECT_EQ(moves[0].source, Slot{1});
}

// Any placement in which every expert has a slot and those of ranks that are away have none.
std::vector<int> DrawExperts(const PlacementShape& shape, const std::vector<char>& away, RandomStream* random) {
  std::vector<int> open;
  for (int slot = 0; slot < shape.slots; ++slot) {
    if (away[Index(shape.rank_of(Slot(slot)))] == 0) open.push_back(slot);
  }
  for (size_t i = open.size() - 1; i > 0; --i) std::swap(open[i], open[random->Below(i + 1)]);
  std::vector<int> experts(shape.slots, -1);
  for (size_t i = 0; i < open.size(); ++i) {
    const bool redundant = i >= static_cast<size_t>(shape.experts);
    experts[open[i]] = redundant ? static_cast<int>(random->Below(shape.experts)) : static_cast<int>(i);
  }
  return experts;
}

// On random pairs, some with a rank that has just failed: the moves, and nothing else, turn one placement into the
// other; each takes the least of (way, sent so far, slot) over all slots that hold its expert.
TEST(FindSlotMoves, TurnsOnePlacementIntoTheOther) {
  RandomStream random(1, "slot_moves_test");
  int from_host = 0, over_network = 0;
  for (int trial = 0; trial < 500; ++trial) {
    PlacementShape shape{.layers = 1};
    shape.nodes = 1 + static_cast<int>(random.Below(3));
    shape.ranks = shape.nodes * (2 + static_cast<int>(random.Below(3)));
    shape.slots = shape.ranks * (1 + static_cast<int>(random.Below(4)));
    shape.experts = 1 + static_cast<int>(random.Below(shape.slots - shape.slots_per_rank()));
    std::vector<char> none(shape.ranks), away(shape.ranks);
    const bool fails = random.Below(2) == 0;
    if (fails) away[random.Below(shape.ranks)] = 1;
    const std::vector<int> before = DrawExperts(shape, none, &random), after = DrawExperts(shape, away, &random);
    std::vector<int32_t> sent(shape.ranks);
    for (int32_t& count : sent) count = static_cast<int32_t>(random.Below(3));
    std::vector<int32_t> expected_sent = sent;
    const std::vector<SlotMove> moves =
        FindSlotMoves(Held(shape, before), Held(shape, after), Layer{0}, false, absl::MakeSpan(sent),
                      fails ? absl::Span<const char>(away) : absl::Span<const char>());

    std::vector<int> turned = before;
    int last = -1;
    for (const SlotMove& move : moves) {
      const int slot = static_cast<int>(move.slot), expert = static_cast<int>(move.expert);
      ASSERT_GT(slot, last);
      last = slot;
      ASSERT_NE(before[slot], expert);
      turned[slot] = expert;

      const auto way_from = [&](int source) {
        const Rank a = shape.rank_of(Slot(source)), b = shape.rank_of(move.slot);
        return a == b ? MoveWay::kGpu : shape.node_of(a) == shape.node_of(b) ? MoveWay::kNode : MoveWay::kNetwork;
      };
      std::vector<std::tuple<MoveWay, int32_t, int>> sources;
      for (int source = 0; source < shape.slots; ++source) {
        const size_t rank = Index(shape.rank_of(Slot(source)));
        if (before[source] != expert || away[rank] != 0) continue;
        const MoveWay way = way_from(source);
        sources.emplace_back(way, way == MoveWay::kGpu ? 0 : expected_sent[rank], source);
      }
      if (sources.empty()) {
        ASSERT_EQ(move.way, MoveWay::kHost);
        ASSERT_EQ(move.stager, HostStaging(shape).stager(shape.node_of(shape.rank_of(move.slot)), move.expert));
        ++from_host;
        continue;
      }
      const auto [way, load, source] = *std::min_element(sources.begin(), sources.end());
      ASSERT_EQ(move.way, way) << "trial " << trial;
      ASSERT_EQ(move.source, Slot(source)) << "trial " << trial;
      if (way != MoveWay::kGpu) ++expected_sent[Index(shape.rank_of(move.source))];
      if (way == MoveWay::kNetwork) ++over_network;
    }
    for (int slot = 0; slot < shape.slots; ++slot) {
      if (after[slot] == -1) turned[slot] = -1;
    }
    ASSERT_EQ(turned, after) << "trial " << trial;
    ASSERT_EQ(sent, expected_sent) << "trial " << trial;
  }
  EXPECT_GT(from_host, 100);
  EXPECT_GT(over_network, 100);
}

TEST(FindSlotMovesDeathTest, NeedsOneShape) {
  PlacementShape other = kOneNode;
  other.nodes = 2;
  const std::vector<int> experts = {0, 1, 2, 3, 0, 1, 2, 3};
  std::vector<int32_t> sent(4), too_few(3);
  EXPECT_DEATH(FindSlotMoves(Held(kOneNode, experts), Held(other, experts), Layer{0}, false, absl::MakeSpan(sent)),
               "shape == after.shape");
  EXPECT_DEATH(
      FindSlotMoves(Held(kOneNode, experts), Held(kOneNode, experts), Layer{0}, false, absl::MakeSpan(too_few)),
      "sent.size");
}

}  // namespace
}  // namespace epsim
