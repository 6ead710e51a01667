#include "policies/replica/pair_deal.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <vector>

#include "gtest/gtest.h"
#include "tests/policies/replica/drawn_call.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

constexpr int kExperts = 24;

// Eight ranks of four nodes.
class Deals : public testing::TestWithParam<CallForm> {
 protected:
  Deals()
      : random_(9, "pair_deal"),
        placement_(DrawPlacement({.layers = 1, .experts = kExperts, .slots = 48, .ranks = 8, .nodes = 4}, &random_)),
        drawn_(placement_.shape(), GetParam(), &random_),
        pairs_(CountPairs(drawn_.call, kExperts)),
        split_(placement_, Layer(0), SumOverSources(pairs_, kExperts)) {
    split_.DealToLeastLoaded();
  }

  int32_t has(size_t source, size_t expert) const { return pairs_[source * kExperts + expert]; }

  // What the sources give is what they have, what the parts get is what they are to get, and the slots are as given.
  void ExpectDealtInFull(const PairDeal& deal) {
    std::vector<uint16_t> slots(drawn_.call.tokens() * drawn_.call.top_k);
    deal.Fill(drawn_.call, absl::MakeSpan(slots));
    std::vector<int32_t> filled(48 * 8);  // [slots, sources]
    for (size_t s = 0; s < 8; ++s) {
      for (int32_t token = drawn_.call.begin[s]; token < drawn_.call.end[s]; ++token) {
        for (int k = 0; k < drawn_.call.valid(token); ++k) {
          ++filled[slots[token * drawn_.call.top_k + k] * size_t{8} + s];
        }
      }
    }
    for (const uint32_t e : split_.replicated()) {
      for (size_t p = 0; p < split_.parts(e).size(); ++p) {
        int64_t sum = 0;
        for (size_t s = 0; s < 8; ++s) {
          ASSERT_GE(deal.given(e, p, s), 0);
          ASSERT_EQ(filled[split_.parts(e)[p].slot * size_t{8} + s], deal.given(e, p, s)) << e << " " << p << " " << s;
          sum += deal.given(e, p, s);
        }
        ASSERT_EQ(sum, split_.parts(e)[p].pairs) << e << " " << p;
      }
      for (size_t s = 0; s < 8; ++s) {
        int64_t sum = 0;
        for (size_t p = 0; p < split_.parts(e).size(); ++p) sum += deal.given(e, p, s);
        ASSERT_EQ(sum, has(s, e)) << e << " " << s;
      }
    }
  }

  RandomStream random_;
  const Placement placement_;
  const DrawnCall drawn_;
  const std::vector<int32_t> pairs_;
  ReplicaSplit split_;
};

TEST_P(Deals, PreferNearDealsInFull) {
  PairDeal deal(split_, pairs_);
  deal.PreferNear(placement_.shape());
  ExpectDealtInFull(deal);
}

// Of an expert at most min(what a source has, what its rank gets) pairs can stay on the rank, and at most min(what the
// sources of a node have, what its ranks get) on the node.
TEST_P(Deals, PreferNearKeepsOnRanksAndNodesWhatCanBe) {
  PairDeal deal(split_, pairs_);
  deal.PreferNear(placement_.shape());
  for (const uint32_t e : split_.replicated()) {
    std::vector<int64_t> node_has(4), node_gets(4), node_keeps(4);
    for (size_t s = 0; s < 8; ++s) node_has[s / 2] += has(s, e);
    for (size_t p = 0; p < split_.parts(e).size(); ++p) {
      const ReplicaSplit::Part& part = split_.parts(e)[p];
      EXPECT_EQ(deal.given(e, p, part.rank), std::min<int64_t>(has(part.rank, e), part.pairs));
      node_gets[part.rank / 2] += part.pairs;
      for (const size_t s : {part.rank / 2 * size_t{2}, part.rank / 2 * size_t{2} + 1}) {
        node_keeps[part.rank / 2] += deal.given(e, p, s);
      }
    }
    for (size_t n = 0; n < 4; ++n) EXPECT_EQ(node_keeps[n], std::min(node_has[n], node_gets[n])) << e << " " << n;
  }
}

TEST_P(Deals, InProportionDealsInFull) {
  PairDeal deal(split_, pairs_);
  deal.InProportion();
  ExpectDealtInFull(deal);
}

// The first part is off by less than one pair.  What the sources have left is then off by as much, of which a later
// part takes its share and is off by less than one itself: less than two in all.
TEST_P(Deals, InProportionIsInProportion) {
  PairDeal deal(split_, pairs_);
  deal.InProportion();
  for (const uint32_t e : split_.replicated()) {
    int64_t all = 0;
    for (const ReplicaSplit::Part& part : split_.parts(e)) all += part.pairs;
    for (size_t p = 0; p < split_.parts(e).size(); ++p) {
      const double share = static_cast<double>(split_.parts(e)[p].pairs) / static_cast<double>(all);
      for (size_t s = 0; s < 8; ++s) EXPECT_LT(std::abs(deal.given(e, p, s) - has(s, e) * share), p == 0 ? 1 : 2);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Calls, Deals,
                         testing::Values(CallForm{.tokens_per_rank = 2}, CallForm{.tokens_per_rank = 60},
                                         CallForm{.tokens_per_rank = 900, .id_bytes = 2},
                                         CallForm{.tokens_per_rank = 90, .ragged = true}),
                         [](const auto& info) { return std::to_string(info.index); });

}  // namespace
}  // namespace epsim
