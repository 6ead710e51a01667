// The perfect balance of a layer, worked by hand.
#include "models/simulation/balanced_work.h"

#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

// An active expert is 10 us of work, a pair 1 us; GPUs share them.
class SharedCosts : public ConstantCosts {
 public:
  Cost LeastExperts(double active, double pairs, int gpus) const override {
    return {RoundUpSeconds((10 * active + pairs) * 1e-6 / gpus)};
  }
};

// Four experts on two nodes of two ranks.
class BalancedWork : public ForwardPassTest {
 protected:
  BalancedWork() {
    platform_.mutable_nic()->set_bandwidth("1 GB/s");
    platform_.mutable_nic()->set_latency("1 us");
  }

  // A step of 2 tokens a rank whose one layer was counted so.
  StepWork Work(RoutedLayer routed) {
    StepWork work;
    work.split.pieces = {{.begin = {0, 2, 4, 6}, .end = {2, 4, 6, 8}}};
    for (const int32_t tokens : routed.tokens_per_slot) routed.pairs += tokens;
    work.routed = {std::move(routed)};
    work.expert_costs.resize(4);
    return work;
  }
  StepWork Balance(const std::vector<ComparedWork>& compared, const ExpertCostScale* scale = nullptr) {
    const Cluster cluster = Cluster::Create(platform_, 4, overrides_).value();
    StepWork bound = Work({});
    bound.routed = {RoutedLayer{}};
    BalanceLayer(compared, costs_, scale, cluster, shape_, 0, &bound);
    return bound;
  }

  const PlacementShape shape_{.layers = 1, .experts = 4, .slots = 4, .ranks = 4, .nodes = 2};
  const Placement in_order_{shape_, {LogicalExpert(0), LogicalExpert(1), LogicalExpert(2), LogicalExpert(3)}};
  SharedCosts costs_;
  // Pairs of nodes (0, 1) and (2, 3): 1 + 2 + 3 + 4 = 10 copies near, 24 + 8 = 32 far.
  const StepWork one_ = Work({.tokens_per_slot = {6, 2, 0, 0},
                              .tokens_between = {9, 1, 4, 4,  //
                                                 2, 9, 4, 4,  //
                                                 4, 4, 9, 3,  //
                                                 4, 4, 4, 9}});
};

// 2 active experts and 8 pairs make 28 us for four.  10 near copies over the 4 near pairs are 2.5, rounded down; 32 far
// ones over 8 are 4.
TEST_F(BalancedWork, EveryRankHasTheMean) {
  const StepWork bound = Balance({{&one_, &in_order_}});
  EXPECT_THAT(bound.routed[0].tokens_per_slot, ElementsAre(2, 2, 2, 2));
  EXPECT_EQ(bound.routed[0].pairs, 8);
  EXPECT_THAT(bound.routed[0].tokens, ElementsAre(2, 2, 2, 2));
  EXPECT_THAT(bound.routed[0].tokens_between, ElementsAre(0, 2, 4, 4,  //
                                                          2, 0, 4, 4,  //
                                                          4, 4, 0, 2,  //
                                                          4, 4, 2, 0));
  EXPECT_TRUE(bound.routed[0].pairs_between.empty());
  EXPECT_TRUE(bound.routed[0].tokens_to_node.empty());
  for (const Cost& cost : bound.expert_costs) EXPECT_EQ(cost.time, Duration(7us));
}

// The other alternative has fewer far copies (8), but more near ones (40); it reads more experts (4), but computes
// fewer pairs (4): the bound takes the least of each, though neither has it all.
TEST_F(BalancedWork, TakesTheLeastOfEach) {
  const StepWork other = Work({.tokens_per_slot = {1, 1, 1, 1},
                               .tokens_between = {0, 10, 1, 1,  //
                                                  10, 0, 1, 1,  //
                                                  1, 1, 0, 10,  //
                                                  1, 1, 10, 0}});
  for (const auto& compared : {std::vector<ComparedWork>{{&one_, &in_order_}, {&other, &in_order_}},
                               {{&other, &in_order_}, {&one_, &in_order_}}}) {
    const StepWork bound = Balance(compared);
    EXPECT_THAT(bound.routed[0].tokens_between, ElementsAre(0, 2, 1, 1,  //
                                                            2, 0, 1, 1,  //
                                                            1, 1, 0, 2,  //
                                                            1, 1, 2, 0));
    EXPECT_EQ(bound.routed[0].pairs, 4);
    // 2 active experts, 4 pairs: 24 us for four.
    for (const Cost& cost : bound.expert_costs) EXPECT_EQ(cost.time, Duration(6us));
  }
}

// Slots 0 and 1 hold replicas of expert 0: one active expert, not two.
TEST_F(BalancedWork, ReplicasAreOneExpert) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 4, .nodes = 2};
  const Placement replicated(shape, {LogicalExpert(0), LogicalExpert(0), LogicalExpert(1), LogicalExpert(2)});
  const StepWork bound = Balance({{&one_, &replicated}});
  // (10 + 8) / 4
  for (const Cost& cost : bound.expert_costs) EXPECT_EQ(cost.time, Duration(4500ns));
}

// Expert 0 takes twice as long: 2 + 1 active, 12 + 2 pairs: 44 us for four.
TEST_F(BalancedWork, ExpertsCountByTheirScale) {
  const ExpertCostScale scale(4, {2, 1, 1, 1});
  const StepWork bound = Balance({{&one_, &in_order_}}, &scale);
  for (const Cost& cost : bound.expert_costs) EXPECT_EQ(cost.time, Duration(11us));
}

// Ranks of speed 1, 1, 1 and 0.5: 0.875 in the mean, and 7 us / 0.875 is 8.
TEST_F(BalancedWork, GoesByTheMeanSpeed) {
  ClusterOverrides::Gpu* gpu = overrides_.add_gpu();
  gpu->set_rank(3);
  gpu->set_speed(0.5);
  const StepWork bound = Balance({{&one_, &in_order_}});
  for (const Cost& cost : bound.expert_costs) EXPECT_EQ(cost.time, Duration(8us));
}

// Copies to the other node: 4 + 4 + 5 + 6 = 19 over the four places, rounded down.  Pairs between ranks: 8 near, 16
// far.
TEST_F(BalancedWork, SpreadsWhatStrategiesGoBy) {
  StepWork detailed = one_;
  detailed.routed[0].tokens_to_node = {7, 4,  //
                                       7, 4,  //
                                       5, 7,  //
                                       6, 7};
  detailed.routed[0].pairs_between = {0, 2, 2, 2,  //
                                      2, 0, 2, 2,  //
                                      2, 2, 0, 2,  //
                                      2, 2, 2, 0};
  const StepWork bound = Balance({{&detailed, &in_order_}});
  EXPECT_THAT(bound.routed[0].tokens_to_node, ElementsAre(0, 4,  //
                                                          0, 4,  //
                                                          4, 0,  //
                                                          4, 0));
  EXPECT_THAT(bound.routed[0].pairs_between, ElementsAre(0, 2, 2, 2,  //
                                                         2, 0, 2, 2,  //
                                                         2, 2, 0, 2,  //
                                                         2, 2, 2, 0));
}

}  // namespace
}  // namespace epsim
