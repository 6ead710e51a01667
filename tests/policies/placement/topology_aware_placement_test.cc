// Does topology_aware use what it is told of the wires, and never lose against EPLB by its own prediction?
#include "policies/placement/topology_aware_placement.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/layer_prediction.h"
#include "tests/policies/placement/simple_costs.h"

namespace epsim {
namespace {

struct Workload {
  PlacementShape shape;
  std::vector<double> load;      // [layers, experts]
  std::vector<uint16_t> sample;  // [layers, tokens, top_k]
  CoActivation co_activation;
};

PlacementRequest RequestOf(const Workload& w, const CostView* cost, RandomStream* random) {
  PlacementRequest request;
  request.window = {.rows = 1, .layers = w.shape.layers, .experts = w.shape.experts, .tokens = w.load};
  request.cost = cost;
  request.co_activation = cost != nullptr ? &w.co_activation : nullptr;
  request.random = random;
  return request;
}

Placement TopologyAware(const Workload& w, const CostView* cost) {
  RandomStream random(1, "placement");
  return NewTopologyAwarePlacement(w.shape).value()->Place(RequestOf(w, cost, &random)).value();
}

Placement EplbOf(const Workload& w, EplbPlacement::Mode mode) {
  return Eplb(std::vector<float>(w.load.begin(), w.load.end()), w.shape, mode);
}

double TimeOf(const Workload& w, const CostView* cost, const Placement& placement, int layer) {
  RandomStream random(1, "placement");
  LayerPrediction prediction(w.shape, RequestOf(w, cost, &random));
  prediction.Begin(Layer(layer), placement.experts_of_slots(Layer(layer)));
  return prediction.time();
}

// Tokens of `top_k` experts that draw pairs (e, partner[e]) until they have them all.
Workload Paired(const PlacementShape& shape, int tokens, int top_k, const std::vector<int>& partner) {
  Workload w{.shape = shape, .load = {}, .sample = {}, .co_activation = {}};
  w.load.resize(static_cast<size_t>(shape.layers) * shape.experts);
  RandomStream random(5, "pairs");
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int token = 0; token < tokens; ++token) {
      std::vector<bool> taken(shape.experts);
      for (int k = 0; k < top_k;) {
        const auto expert = static_cast<int>(random.Below(shape.experts));
        if (taken[expert]) continue;
        for (int e : {expert, partner[expert]}) {
          taken[e] = true;
          w.sample.push_back(static_cast<uint16_t>(e));
          ++w.load[static_cast<size_t>(layer) * shape.experts + e];
          ++k;
        }
      }
    }
  }
  w.co_activation = {.layers = shape.layers, .tokens = tokens, .top_k = top_k, .experts = w.sample};
  return w;
}

// 24 experts on two nodes of three ranks of four slots; expert e is always chosen with 23 - e.
class Pairs : public testing::TestWithParam<ExchangeCost::Copies> {
 protected:
  static constexpr PlacementShape kShape{.layers = 3, .experts = 24, .slots = 24, .ranks = 6, .nodes = 2};
  Pairs() {
    std::vector<int> partner(24);
    for (int e = 0; e < 24; ++e) partner[e] = 23 - e;
    workload_ = Paired(kShape, 600, 2, partner);
  }
  Workload workload_;
};

// One copy a token is then enough.  EPLB, which gives neighbours in load to different ranks, leaves no pair on one rank
// and the pairs of every sixth rank on two nodes.  A local search may leave a pair or two where moving either expert
// alone would unbalance the ports.
TEST_P(Pairs, AreBroughtTogether) {
  const SimpleCosts costs(6, {.node_ps = 1, .through_ps = 0, .network_ps = 20}, GetParam());
  const Placement placement = TopologyAware(workload_, &costs);
  const Placement eplb = EplbOf(workload_, EplbPlacement::GLOBAL);
  const auto pairs_together = [](const Placement& p, int layer) {
    int on_rank = 0, on_node = 0;
    for (int e = 0; e < 12; ++e) {
      const Rank a = kShape.rank_of(p.replicas(Layer(layer), LogicalExpert(e))[0]);
      const Rank b = kShape.rank_of(p.replicas(Layer(layer), LogicalExpert(23 - e))[0]);
      on_rank += a == b;
      on_node += kShape.node_of(a) == kShape.node_of(b);
    }
    return std::pair(on_rank, on_node);
  };
  for (int layer = 0; layer < 3; ++layer) {
    EXPECT_EQ(pairs_together(placement, layer).second, 12);
    EXPECT_LT(pairs_together(eplb, layer).second, 12);
    if (GetParam() == ExchangeCost::Copies::kOncePerRank) {
      EXPECT_EQ(pairs_together(placement, layer).first, 12);
      EXPECT_LE(pairs_together(eplb, layer).first, 2);
    }
    EXPECT_LT(TimeOf(workload_, &costs, placement, layer), 0.95 * TimeOf(workload_, &costs, eplb, layer));
  }
}

INSTANTIATE_TEST_SUITE_P(Copies, Pairs,
                         testing::Values(ExchangeCost::Copies::kOncePerRank, ExchangeCost::Copies::kOncePerNode),
                         [](const auto& info) {
                           return info.param == ExchangeCost::Copies::kOncePerRank ? "OncePerRank" : "OncePerNode";
                         });

// Skewed loads with redundant slots; topics of eight experts that tokens prefer.
Workload Skewed(const PlacementShape& shape, uint64_t seed) {
  Workload w{.shape = shape, .load = {}, .sample = {}, .co_activation = {}};
  w.load.resize(static_cast<size_t>(shape.layers) * shape.experts);
  RandomStream random(seed, "skewed");
  constexpr int kTokens = 500, kTopK = 4;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int token = 0; token < kTokens; ++token) {
      std::vector<bool> taken(shape.experts);
      const auto topic = static_cast<int>(random.Below(shape.experts / 8));
      for (int k = 0; k < kTopK;) {
        const double u = random.Unit();
        int e = static_cast<int>(u * u * shape.experts);
        if (random.Below(2) == 0) e = e / 8 % (shape.experts / 8) == topic ? e : topic * 8 + e % 8;
        if (taken[e]) continue;
        taken[e] = true;
        w.sample.push_back(static_cast<uint16_t>(e));
        ++w.load[static_cast<size_t>(layer) * shape.experts + e];
        ++k;
      }
    }
  }
  w.co_activation = {.layers = shape.layers, .tokens = kTokens, .top_k = kTopK, .experts = w.sample};
  return w;
}

const PlacementShape kShapes[] = {
    {.layers = 2, .experts = 32, .slots = 40, .ranks = 8, .nodes = 2, .expert_groups = 4},
    {.layers = 2, .experts = 64, .slots = 96, .ranks = 16, .nodes = 4},
    {.layers = 2, .experts = 32, .slots = 48, .ranks = 8},
    {.layers = 2, .experts = 32, .slots = 32, .ranks = 32, .nodes = 4, .expert_groups = 4},
};

TEST(TopologyAware, IsNeverPredictedToBeSlowerThanEplb) {
  int faster = 0, layers = 0;
  for (const PlacementShape& shape : kShapes) {
    for (double network_ps : {0.01, 1.0, 50.0}) {
      for (ExchangeCost::Copies copies : {ExchangeCost::Copies::kOncePerRank, ExchangeCost::Copies::kOncePerNode,
                                          ExchangeCost::Copies::kOncePerExpert}) {
        const SimpleCosts costs(shape.ranks, {.node_ps = network_ps / 8, .through_ps = 0, .network_ps = network_ps},
                                copies);
        const Workload w = Skewed(shape, 11);
        const Placement placement = TopologyAware(w, &costs);
        for (int layer = 0; layer < shape.layers; ++layer, ++layers) {
          const double time = TimeOf(w, &costs, placement, layer);
          double eplb = TimeOf(w, &costs, EplbOf(w, EplbPlacement::GLOBAL), layer);
          if (CheckEplbShape(shape, EplbPlacement::HIERARCHICAL).ok()) {
            eplb = std::min(eplb, TimeOf(w, &costs, EplbOf(w, EplbPlacement::HIERARCHICAL), layer));
          }
          EXPECT_LE(time, eplb);
          faster += time < eplb;
        }
      }
    }
  }
  EXPECT_GT(faster, layers / 2);
}

// Without costs the busiest rank's load counts, and that is at most EPLB's.
TEST(TopologyAware, BalancesLoadWhereNothingElseIsKnown) {
  for (const PlacementShape& shape : kShapes) {
    const Workload w = Skewed(shape, 12);
    const Placement placement = TopologyAware(w, nullptr);
    for (int layer = 0; layer < shape.layers; ++layer) {
      EXPECT_LE(TimeOf(w, nullptr, placement, layer), TimeOf(w, nullptr, EplbOf(w, EplbPlacement::GLOBAL), layer));
    }
  }
}

// Where wires cost nothing next to experts, the balance of load is not given up for them.
TEST(TopologyAware, FastWiresLeaveTheBalanceAlone) {
  const Workload w = Skewed(kShapes[1], 13);
  const SimpleCosts costs(16, {.node_ps = 1e-6, .through_ps = 0, .network_ps = 1e-6},
                          ExchangeCost::Copies::kOncePerRank);
  const Placement placement = TopologyAware(w, &costs);
  for (int layer = 0; layer < 2; ++layer) {
    EXPECT_LE(TimeOf(w, nullptr, placement, layer), 1.02 * TimeOf(w, nullptr, TopologyAware(w, nullptr), layer));
  }
}

TEST(TopologyAware, NeedsWholeNodes) {
  EXPECT_EQ(
      NewTopologyAwarePlacement({.layers = 1, .experts = 8, .slots = 8, .ranks = 8, .nodes = 3}).status(),
      absl::InvalidArgumentError("topology_aware: ranks: 8 are not divisible by 3 nodes; 6 or 9 ranks would fit"));
}

TEST(GoesByCoActivation, OnlyWhereItIsLookedAt) {
  PlacementPolicyConfig config;
  config.mutable_topology_aware();
  EXPECT_TRUE(GoesByCoActivation(config));
  config.mutable_eplb();
  EXPECT_FALSE(GoesByCoActivation(config));
}

}  // namespace
}  // namespace epsim
