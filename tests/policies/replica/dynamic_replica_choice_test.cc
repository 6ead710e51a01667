#include "policies/replica/dynamic_replica_choice.h"

#include <map>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/policies/replica/drawn_call.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

std::vector<uint16_t> Deal(const Placement& placement, const RouterCall& call) {
  std::vector<uint16_t> slots(call.tokens() * call.top_k);
  NewDynamicReplicaChoice()->Deal(placement, call, absl::MakeSpan(slots));
  return slots;
}

// Six slots; in both layers expert 0 has the first three, expert 1 the others.  Every token chooses both.
class Dynamic : public testing::Test {
 protected:
  static constexpr int kTokens = 30'000;

  Dynamic() {
    std::vector<LogicalExpert> experts;
    for (int i = 0; i < 12; ++i) experts.push_back(LogicalExpert(i % 6 / 3));
    placement_ = Placement({.layers = 2, .experts = 2, .slots = 6, .ranks = 6}, experts);
    for (int token = 0; token < kTokens; ++token) ids_.insert(ids_.end(), {0, 1});
    begin_ = {0, 10'000, 10'000, 10'000, 20'000, 25'000};
    end_ = {10'000, 10'000, 10'000, 20'000, 25'000, kTokens};
    call_.begin = begin_;
    call_.end = end_;
    call_.top_k = 2;
    call_.ids = reinterpret_cast<const std::byte*>(ids_.data());
  }

  // Each of the nine pairs of replicas is as frequent as any: 30,000 / 9 = 3,333 +- 5 sigma of 54.
  static void ExpectIndependent(const std::vector<int>& a, const std::vector<int>& b) {
    std::map<std::pair<int, int>, int> count;
    for (size_t i = 0; i < a.size(); ++i) ++count[{a[i] % 3, b[i] % 3}];
    ASSERT_EQ(count.size(), 9u);
    for (const auto& [pair, times] : count) EXPECT_NEAR(times, 3333, 272) << pair.first << " " << pair.second;
  }
  // The slots of the k-th expert of all tokens.
  std::vector<int> Slots(int k) {
    const std::vector<uint16_t> all = Deal(placement_, call_);
    std::vector<int> slots;
    for (size_t i = k; i < all.size(); i += 2) slots.push_back(all[i]);
    return slots;
  }

  Placement placement_;
  std::vector<uint8_t> ids_;
  std::vector<int32_t> begin_, end_;
  RouterCall call_;
};

// 30,000 tokens over three replicas: 10,000 each, sigma = sqrt(30,000 * 1/3 * 2/3) = 82; within 5 sigma.
TEST_F(Dynamic, EveryReplicaIsAsLikelyAsAnyOther) {
  for (int k = 0; k < 2; ++k) {
    std::map<int, int> count;
    for (const int slot : Slots(k)) ++count[slot];
    ASSERT_EQ(count.size(), 3u);
    for (int i = 0; i < 3; ++i) EXPECT_NEAR(count[3 * k + i], 10'000, 410);
  }
}

TEST_F(Dynamic, DrawsAnewForEachExpertTokenLayerStepAndRun) {
  const std::vector<int> first = Slots(0);
  ExpectIndependent(first, Slots(1));
  std::vector<int> next_token(first.begin() + 1, first.end());
  next_token.push_back(first[0]);
  ExpectIndependent(first, next_token);
  call_.layer = Layer(1);
  ExpectIndependent(first, Slots(0));
  call_.layer = Layer(0);
  call_.step = 1;
  ExpectIndependent(first, Slots(0));
  call_.step = 0;
  call_.random = 1;
  ExpectIndependent(first, Slots(0));
}

TEST_F(Dynamic, IsTheSameInWhateverPiecesABatchIsExchanged) {
  const std::vector<uint16_t> whole = Deal(placement_, call_);
  std::vector<int32_t> middle;
  for (size_t s = 0; s < begin_.size(); ++s) middle.push_back(begin_[s] + (end_[s] - begin_[s]) / 3);
  RouterCall a = call_, b = call_;
  a.end = b.begin = middle;
  const std::vector<uint16_t> of_a = Deal(placement_, a), of_b = Deal(placement_, b);
  std::vector<uint16_t> together;
  auto next_a = of_a.begin(), next_b = of_b.begin();
  for (size_t s = 0; s < begin_.size(); ++s) {
    for (int i = 0; i < 2 * (middle[s] - begin_[s]); ++i) together.push_back(*next_a++);
    for (int i = 0; i < 2 * (end_[s] - middle[s]); ++i) together.push_back(*next_b++);
  }
  EXPECT_EQ(together, whole);
}

}  // namespace
}  // namespace epsim
