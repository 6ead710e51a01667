#include "policies/replica/round_robin_replica_choice.h"

#include <map>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/replica/drawn_call.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::vector<uint16_t> Deal(const Placement& placement, const RouterCall& call, bool offset_by_ep_rank) {
  std::vector<uint16_t> slots(call.tokens() * call.top_k);
  NewRoundRobinReplicaChoice(offset_by_ep_rank)->Deal(placement, call, absl::MakeSpan(slots));
  return slots;
}

std::vector<LogicalExpert> Experts(const std::vector<int>& experts) {
  std::vector<LogicalExpert> result;
  for (int expert : experts) result.push_back(LogicalExpert(expert));
  return result;
}

// Two ranks; expert 0 in slots 0, 2, 4, expert 1 in slots 1 and 5, expert 2 in slot 3.
class RoundRobin : public testing::Test {
 protected:
  RoundRobin() : placement_({.layers = 1, .experts = 3, .slots = 6, .ranks = 2}, Experts({0, 1, 0, 2, 0, 1})) {}

  RouterCall Call(const std::vector<uint8_t>& ids, int top_k) {
    RouterCall call;
    call.begin = begin_;
    call.end = end_;
    call.top_k = top_k;
    call.ids = reinterpret_cast<const std::byte*>(ids.data());
    return call;
  }

  const Placement placement_;
  std::vector<int32_t> begin_, end_;
};

// Each rank counts for itself, in block 0: expert 0's tokens take its replicas 0, 1, 2, 0; rank 1 begins one further.
TEST_F(RoundRobin, EachRankTakesTurnsAndBeginsAtItsOwnNumber) {
  begin_ = {0, 3};
  end_ = {3, 5};
  const std::vector<uint8_t> ids = {0, 1, 0, 2, 1, 0, /* rank 1 */ 0, 1, 1, 0};
  EXPECT_THAT(Deal(placement_, Call(ids, 2), true), ElementsAre(0, 1, 2, 3, 5, 4, /* rank 1 */ 2, 5, 1, 4));
  EXPECT_THAT(Deal(placement_, Call(ids, 2), false), ElementsAre(0, 1, 2, 3, 5, 4, /* rank 1 */ 0, 1, 5, 2));
}

// 1,030 pairs of expert 0 on rank 1: pair i of block 0 takes replica (i + 0 + 1) mod 3, so pair 1,023, the last of the
// block, replica 1,024 mod 3 = 1; block 1 begins anew at (0 + 1 + 1) mod 3 = 2.
TEST_F(RoundRobin, BeginsAnewEvery1024Pairs) {
  begin_ = {0, 0};
  end_ = {0, 1030};
  const std::vector<uint16_t> slots = Deal(placement_, Call(std::vector<uint8_t>(1030, 0), 1), true);
  EXPECT_THAT(std::vector<uint16_t>(slots.begin(), slots.begin() + 4), ElementsAre(2, 4, 0, 2));
  EXPECT_THAT(std::vector<uint16_t>(slots.begin() + 1022, slots.begin() + 1028), ElementsAre(0, 2, 4, 0, 2, 4));
}

// What follows a token's valid ids has a place in the block, and no turn: with two ids a token, the second of token 0
// invalid, token 512 begins block 1 in any case.
TEST_F(RoundRobin, InvalidIdsHaveAPlaceAndNoTurn) {
  begin_ = {0, 513};
  end_ = {513, 513};
  std::vector<uint8_t> ids(2 * 513, 2), valid(513, 1);
  ids[0] = ids[4] = ids[2 * 512] = 0;
  ids[1] = ids[3] = ids[5] = 0;  // Invalid.
  const std::vector<uint8_t>& given = ids;
  RouterCall call = Call(given, 2);
  call.valid_count = valid.data();
  const std::vector<uint16_t> slots = Deal(placement_, call, true);
  EXPECT_EQ(slots[0], 0);
  EXPECT_EQ(slots[4], 2);
  EXPECT_EQ(slots[2 * 512], 2);  // (0 + 1 + 0) mod 3 = 1.
}

// By the formula, pair by pair.
TEST(RoundRobinReplicaChoice, DealsByTheFormula) {
  RandomStream random(2, "round_robin");
  const Placement placement = DrawPlacement({.layers = 2, .experts = 24, .slots = 60, .ranks = 6}, &random);
  for (const bool ragged : {false, true}) {
    DrawnCall drawn(placement.shape(), {.tokens_per_rank = 700, .top_k = 5, .ragged = ragged}, &random);
    RouterCall& call = drawn.call;
    call.layer = Layer(1);
    const std::vector<uint16_t> slots = Deal(placement, call, true);
    for (size_t source = 0; source < call.begin.size(); ++source) {
      std::map<std::pair<size_t, int>, size_t> count;  // By block and expert.
      for (int32_t token = call.begin[source]; token < call.end[source]; ++token) {
        for (int k = 0; k < call.valid(token); ++k) {
          const size_t block = static_cast<size_t>((token - call.begin[source]) * call.top_k + k) / 1024;
          const uint16_t expert = drawn.expert(token, k);
          const absl::Span<const Slot> replicas = placement.replicas(Layer(1), LogicalExpert(expert));
          const size_t turn = (count[{block, expert}]++ + block + source) % replicas.size();
          ASSERT_EQ(Slot(slots[token * call.top_k + k]), replicas[turn]) << source << " " << token << " " << k;
        }
      }
    }
  }
}

}  // namespace
}  // namespace epsim
