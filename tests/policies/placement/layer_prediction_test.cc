// Does the predicted time of a layer follow its formula, and do changes lead where placing afresh does?
#include "policies/placement/layer_prediction.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/placement/nearest_shares.h"
#include "tests/policies/placement/simple_costs.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

std::vector<double> Shares(const PlacementShape& shape, const std::vector<Slot>& replicas) {
  std::vector<double> share(replicas.size());
  NearestShares(shape, replicas, absl::MakeSpan(share));
  return share;
}

// Two nodes of two ranks of two slots.
constexpr PlacementShape kTwoNodes{.layers = 1, .experts = 4, .slots = 8, .ranks = 4, .nodes = 2};

TEST(NearestShares, OneReplicaTakesAll) { EXPECT_THAT(Shares(kTwoNodes, {Slot{5}}), ElementsAre(1)); }

TEST(NearestShares, NodesServeThemselves) {
  EXPECT_THAT(Shares(kTwoNodes, {Slot{0}, Slot{6}}), ElementsAre(0.5, 0.5));
  // Node 0 deals its half to two replicas, node 1 has one.
  EXPECT_THAT(Shares(kTwoNodes, {Slot{1}, Slot{2}, Slot{4}}), ElementsAre(0.25, 0.25, 0.5));
}

// Of three nodes the last has no replica: its third goes to all three.  1/3/2 + 1/3/3 = 5/18, 1/3 + 1/3/3 = 8/18.
TEST(NearestShares, NodesWithoutReplicaUseAll) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 6, .ranks = 3, .nodes = 3};
  EXPECT_THAT(Shares(shape, {Slot{0}, Slot{1}, Slot{2}}),
              ElementsAre(testing::DoubleEq(5.0 / 18), testing::DoubleEq(5.0 / 18), testing::DoubleEq(8.0 / 18)));
}

TEST(NearestShares, AreEqualOnOneNode) {
  const PlacementShape shape{.layers = 1, .experts = 4, .slots = 8, .ranks = 4};
  EXPECT_THAT(Shares(shape, {Slot{0}, Slot{3}, Slot{4}, Slot{7}}), ElementsAre(0.25, 0.25, 0.25, 0.25));
}

// Four experts on two nodes of one rank with two slots.
class Prediction : public testing::Test {
 protected:
  // `tokens`: experts of each, two a token.
  void Start(const std::vector<double>& load, const std::vector<uint16_t>& tokens, const CostView* cost,
             const PlacementShape& shape, const std::vector<int>& experts) {
    load_ = load;
    sample_ = tokens;
    co_activation_ = {.layers = 1, .tokens = static_cast<int>(tokens.size()) / 2, .top_k = 2, .experts = sample_};
    PlacementRequest request;
    request.window = {.rows = 1, .layers = 1, .experts = shape.experts, .tokens = load_};
    request.cost = cost;
    request.co_activation = tokens.empty() ? nullptr : &co_activation_;
    prediction_ = std::make_unique<LayerPrediction>(shape, request);
    prediction_->Begin(Layer(0), Experts(experts));
  }
  static std::vector<LogicalExpert> Experts(const std::vector<int>& ids) {
    std::vector<LogicalExpert> experts;
    for (int id : ids) experts.push_back(LogicalExpert(id));
    return experts;
  }

  std::vector<double> load_;
  std::vector<uint16_t> sample_;
  CoActivation co_activation_;
  std::unique_ptr<LayerPrediction> prediction_;
};

constexpr PlacementShape kTwoRanks{.layers = 1, .experts = 4, .slots = 4, .ranks = 2, .nodes = 2};

TEST_F(Prediction, WithoutCostsIsTheLoadOfTheBusiestRank) {
  Start({3, 9, 4, 6}, {}, nullptr, kTwoRanks, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 12);
  EXPECT_FALSE(prediction_->counts_exchange());
  prediction_->Swap(Slot(1), Slot(2));
  EXPECT_EQ(prediction_->time(), 15);
}

// Four tokens with experts (0, 1) or (2, 3), of node 0 and 1 in turn; a step has 16 pairs, so that each stands for two.
// Experts: 1 ps a token.  A copy between nodes takes 100 ps of the NIC; latency 7 ps.
TEST_F(Prediction, CountsCopiesBetweenNodes) {
  const SimpleCosts costs(2, {.node_ps = 10, .through_ps = 0, .network_ps = 100}, ExchangeCost::Copies::kOncePerRank);
  // Pairs on one rank: of the tokens (0, 1) of node 1 and (2, 3) of node 0, one sample each, one copy crosses: 2 copies
  // to each rank and from each.  Experts: 4 + 4.
  Start({4, 4, 4, 4}, {0, 1, 0, 1, 2, 3, 2, 3}, &costs, kTwoRanks, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 8 + 2 * 100 + 7);
  // Torn apart: every token sends one copy to the other node, 4 copies to each rank and from each.
  prediction_->Swap(Slot(1), Slot(2));
  EXPECT_EQ(prediction_->time(), 8 + 4 * 100 + 7);
}

// One copy for each expert: the pair on one rank of the other node costs two.
TEST_F(Prediction, CountsCopiesForEachExpert) {
  const SimpleCosts costs(2, {.node_ps = 10, .through_ps = 0, .network_ps = 100}, ExchangeCost::Copies::kOncePerExpert);
  Start({4, 4, 4, 4}, {0, 1, 0, 1, 2, 3, 2, 3}, &costs, kTwoRanks, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 8 + 4 * 100 + 7);
}

// Two nodes of two ranks.  Tokens (0, 1): one of node 0, one of node 1; each stands for 8 / 4 = 2.
class TwoNodes : public Prediction {
 protected:
  static constexpr PlacementShape kShape{.layers = 1, .experts = 4, .slots = 4, .ranks = 4, .nodes = 2};
  void Start(ExchangeCost::Copies copies, const std::vector<int>& experts) {
    costs_ = std::make_unique<SimpleCosts>(4, PortTime{.node_ps = 10, .through_ps = 0, .network_ps = 100}, copies);
    Prediction::Start({4, 4, 0, 0}, {0, 1, 0, 1}, costs_.get(), kShape, experts);
  }
  std::unique_ptr<SimpleCosts> costs_;
};

// Both on node 0.  Node 1's 2 tokens send 2 copies each, 2 copies a rank; both ranks of node 0 receive 2.  Experts: 4.
TEST_F(TwoNodes, OncePerRank) {
  Start(ExchangeCost::Copies::kOncePerRank, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 4 + 2 * 100 + 7);
  // One on each node: each node's 2 tokens send 2 copies to the other's rank, one from each of their ranks.
  prediction_->Swap(Slot(1), Slot(2));
  EXPECT_EQ(prediction_->time(), 4 + 2 * 100 + 7);
}

// Both on node 0: of node 1's 2 tokens one copy each crosses, one from each rank, and each rank of node 0 hands on.
TEST_F(TwoNodes, OncePerNode) {
  Start(ExchangeCost::Copies::kOncePerNode, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 4 + 1 * 100 + 7);
  // One on each node: one copy crosses from each rank of both nodes.
  prediction_->Swap(Slot(1), Slot(2));
  EXPECT_EQ(prediction_->time(), 4 + 1 * 100 + 7);
}

// With slow ports in the node the forwarding shows: ranks 0 and 1 get the 4 copies of all tokens, half of them in
// place.
TEST_F(TwoNodes, OncePerNodeHandsOnInTheNode) {
  costs_ = std::make_unique<SimpleCosts>(4, PortTime{.node_ps = 1000, .through_ps = 0, .network_ps = 100},
                                         ExchangeCost::Copies::kOncePerNode);
  Prediction::Start({4, 4, 0, 0}, {0, 1, 0, 1}, costs_.get(), kShape, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 4 + 4 / 2 * 1000 + 7);
}

// What passes through the port in the node takes its time there: 2 copies between nodes to each rank of node 0, and of
// its own 2 tokens half come from the other rank.
TEST_F(TwoNodes, PortsThatArePassedThrough) {
  costs_ = std::make_unique<SimpleCosts>(4, PortTime{.node_ps = 1000, .through_ps = 500, .network_ps = 100},
                                         ExchangeCost::Copies::kOncePerRank);
  Prediction::Start({4, 4, 0, 0}, {0, 1, 0, 1}, costs_.get(), kShape, {0, 1, 2, 3});
  EXPECT_EQ(prediction_->time(), 4 + 1 * 1000 + 2 * 500 + 7);
}

// Random changes and back again: as if placed afresh each time, to the last bit.
TEST_F(Prediction, ChangesLeadWherePlacingAfreshDoes) {
  const PlacementShape shape{.layers = 1, .experts = 6, .slots = 12, .ranks = 4, .nodes = 2};
  for (ExchangeCost::Copies copies :
       {ExchangeCost::Copies::kOncePerRank, ExchangeCost::Copies::kOncePerNode, ExchangeCost::Copies::kOncePerExpert}) {
    const SimpleCosts costs(4, {.node_ps = 10, .through_ps = 3, .network_ps = 100}, copies);
    RandomStream random(3, "changes");
    std::vector<uint16_t> tokens;
    for (int token = 0; token < 50; ++token) {
      const auto first = static_cast<uint16_t>(random.Below(6));
      tokens.push_back(first);
      tokens.push_back(token % 7 == 0 ? CoActivation::kNone : static_cast<uint16_t>((first + 1 + random.Below(5)) % 6));
    }
    Start({100, 90, 80, 33, 22, 11}, tokens, &costs, shape, {0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 0});
    for (int change = 0; change < 200; ++change) {
      const std::vector<LogicalExpert> before(prediction_->experts_of_slots().begin(),
                                              prediction_->experts_of_slots().end());
      const double time = prediction_->time(), smooth = prediction_->smooth_time();
      const auto a = Slot(static_cast<int32_t>(random.Below(12))), b = Slot(static_cast<int32_t>(random.Below(12)));
      const LogicalExpert held = before[Index(a)], other = LogicalExpert(static_cast<int32_t>(random.Below(6)));
      const bool assign = random.Below(2) == 0 && prediction_->replicas(held).size() > 1;
      assign ? prediction_->Assign(a, other) : prediction_->Swap(a, b);
      const double changed = prediction_->time(), changed_smooth = prediction_->smooth_time();
      const std::vector<LogicalExpert> after(prediction_->experts_of_slots().begin(),
                                             prediction_->experts_of_slots().end());
      LayerPrediction afresh = *prediction_;
      afresh.Place(after);
      ASSERT_EQ(afresh.time(), changed);
      ASSERT_EQ(afresh.smooth_time(), changed_smooth);
      if (random.Below(2) == 0) continue;
      assign ? prediction_->Assign(a, held) : prediction_->Swap(a, b);
      ASSERT_EQ(prediction_->time(), time);
      ASSERT_EQ(prediction_->smooth_time(), smooth);
      ASSERT_TRUE(std::equal(before.begin(), before.end(), prediction_->experts_of_slots().begin()));
    }
  }
}

// The maximum of R equal values is at most R^(1/16) below their norm.
TEST_F(Prediction, SmoothTimeIsNearTime) {
  const SimpleCosts costs(2, {.node_ps = 10, .through_ps = 0, .network_ps = 100}, ExchangeCost::Copies::kOncePerRank);
  Start({4, 4, 4, 4}, {0, 1, 0, 1, 2, 3, 2, 3}, &costs, kTwoRanks, {0, 1, 2, 3});
  // Two ranks of 8 ps, four ports of 200 ps.
  EXPECT_NEAR(prediction_->smooth_time(), 8 * std::pow(2, 1.0 / 16) + 200 * std::pow(4, 1.0 / 16), 1e-9);
}

// Tokens (0, 2): rank 1 computes expert 2, so that expert 0 has their company there.
TEST_F(Prediction, CompanyIsWhereTokensGoAnyway) {
  const SimpleCosts costs(2, {.node_ps = 10, .through_ps = 0, .network_ps = 100}, ExchangeCost::Copies::kOncePerRank);
  Start({4, 4, 4, 4}, {0, 2, 0, 2, 0, 1, 3, 2}, &costs, kTwoRanks, {0, 1, 2, 3});
  std::vector<int32_t> company(2);
  prediction_->CountCompany(Slot(0), absl::MakeSpan(company));
  EXPECT_THAT(company, ElementsAre(1, 2));
}

}  // namespace
}  // namespace epsim
