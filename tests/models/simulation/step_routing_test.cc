// A routing policy in whole steps: what it moves, what its kernel costs, what it is worth.
#include "models/simulation/step_routing.h"

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/simulation/routing_gain.h"
#include "models/simulation/simulation.h"
#include "policies/replica/static_replica_choice.h"
#include "tests/models/simulation/given_steps.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

constexpr int kRanks = 2, kLayers = 2, kExperts = 4;

// In layer 1 token t of a source goes to expert t mod 4.
class Spread : public RoutingPolicy {
 public:
  void BeginStep(int64_t) override {}
  bool Routes(Layer layer) const override { return layer == Layer{1}; }
  void Route(Layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    choice->count.assign(static_cast<size_t>(request.tokens), 1);
    choice->experts.clear();
    for (int t = 0; t < request.tokens; ++t) choice->experts.push_back(static_cast<uint16_t>(t % kExperts));
  }
  void EndStep(absl::Span<const int32_t>) override {}
};

class StageTimes : public Observer {
 public:
  void OnStage(const StageRecord& stage) override {
    if (stage.kind != StageKind::kRouter) return;
    for (size_t rank = 0; rank < stage.start.size(); ++rank) {
      router[stage.layer].push_back(stage.finish[rank] - stage.start[rank]);
    }
  }
  void OnStepEnd(const StepRecord& step) override { records.assign(step.routing.begin(), step.routing.end()); }

  std::map<int, std::vector<Duration>> router;  // By layer: [steps, halves, ranks].
  std::vector<LayerRouting> records;            // Of the last step.
};

// The router sends all tokens, four of rank 0 and two of rank 1, to expert 0.  Experts 0 and 1 are on rank 0.
class StepRoutingTest : public ForwardPassTest {
 protected:
  StepRoutingTest() {
    model_.set_layers(kLayers);
    model_.set_moe_layers(kLayers);
    for (int i = 0; i < kLayers * kExperts; ++i) experts_of_slots_.push_back(LogicalExpert(i % kExperts));
    SetTokens({4, 2});
    batch_.layers = kLayers;
    batch_.top_k = 1;
    batch_.ids = ids_.data();
    batch_.layer_stride = 6;
  }

  std::unique_ptr<StepRouting> NewRouting() {
    RoutingKernel kernel;
    kernel.set_floor("10 us");
    kernel.set_per_entry("100 ns");
    auto batches = std::make_unique<BatchRouting>(
        std::make_unique<Spread>(), false,
        RoutingShape{.layers = kLayers, .experts = kExperts, .top_k = 1, .ranks = kRanks},
        BatchRouting::Scores::kByRank);
    return std::make_unique<StepRouting>(std::move(batches), RoutingKernelCost::Create(kernel, kExperts).value());
  }

  void Simulate(const std::string& schedule, StepRouting* policy) {
    SetSchedule(schedule);
    const Cluster cluster = Cluster::Create(platform_, kRanks, overrides_).value();
    EventQueue queue;
    FixedNetwork network(&queue, delay_);
    times_ = {};
    gain_ = RoutingGain(kLayers);
    GivenSteps source({batch_, batch_});
    const auto choice = NewStaticReplicaChoice();
    PlacedRouting routing(Placement(shape_, experts_of_slots_), choice.get(), 1, {});
    ForwardContext context{.model = &model_,
                           .cluster = &cluster,
                           .costs = &pair_costs_,
                           .communication = &communication_,
                           .schedule = CompleteScheduleConfig(schedule_).value(),
                           .network = &network,
                           .queue = &queue,
                           .observers = {&times_}};
    if (policy != nullptr) context.observers.push_back(&gain_);
    Simulation simulation(context, &routing, {}, policy);
    ASSERT_TRUE(Replay(source, {&simulation}, {}).ok());
    end_ = queue.now();
  }

  const PlacementShape shape_{.layers = kLayers, .experts = kExperts, .slots = kExperts, .ranks = kRanks};
  std::vector<LogicalExpert> experts_of_slots_;
  const std::vector<std::byte> ids_ = std::vector<std::byte>(kLayers * 6);
  CostsByPair pair_costs_;
  StageTimes times_;
  RoutingGain gain_{kLayers};
  SimTime end_;
};

// The router takes 1 us; the kernel 10 us + 4 (2) tokens * 4 experts * 100 ns, in layer 1 only.
TEST_F(StepRoutingTest, TheRouterTakesTheKernelOfTheLayersRoutedAnew) {
  const auto policy = NewRouting();
  Simulate("", policy.get());
  EXPECT_THAT(times_.router[0], ElementsAre(1us, 1us, 1us, 1us));
  EXPECT_THAT(times_.router[1], ElementsAre(12600ns, 11800ns, 12600ns, 11800ns));
  EXPECT_EQ(policy->memory(), Bytes(4 * kExperts * 4));
}

// Captured: 6 pairs on rank 0.  Routed: experts 0 to 3 and 0, 1: 4 pairs on rank 0, 2 on rank 1.  The first token of
// each rank stays.
TEST_F(StepRoutingTest, MeasuresBothRoutingsUnderThePlacement) {
  Simulate("", NewRouting().get());
  ASSERT_EQ(times_.records.size(), 2u);
  const LayerRouting &first = times_.records[0], &second = times_.records[1];
  EXPECT_FALSE(first.departure.routed_anew);
  EXPECT_EQ(first.captured_expert_time, Duration{});
  EXPECT_EQ(first.overhead, Duration{});
  EXPECT_TRUE(second.departure.routed_anew);
  EXPECT_EQ(second.captured_expert_time, 6us);
  EXPECT_EQ(second.expert_time, 4us);
  EXPECT_EQ(second.overhead, 11600ns);
  EXPECT_EQ(second.empty_overhead, 10us);
  EXPECT_EQ(second.departure.kept_pairs, 2);
}

// Halves of 2 and 1 tokens: 10 us + 2 (1) * 4 * 100 ns, twice.
TEST_F(StepRoutingTest, EachHalfOfABatchRunsTheKernel) {
  Simulate("external { two_batch_overlap { order: PREFILL } }", NewRouting().get());
  EXPECT_THAT(times_.router[1], ElementsAre(11800ns, 11400ns, 11800ns, 11400ns, 11800ns, 11400ns, 11800ns, 11400ns));
  EXPECT_EQ(times_.records[1].overhead, 21600ns);
  EXPECT_EQ(times_.records[1].empty_overhead, 20us);
  EXPECT_EQ(times_.records[1].captured_expert_time, 6us);
  EXPECT_EQ(times_.records[1].expert_time, 4us);
}

TEST_F(StepRoutingTest, WithoutAPolicyNothingIsRecorded) {
  Simulate("", nullptr);
  EXPECT_TRUE(times_.records.empty());
  EXPECT_THAT(times_.router[1], ElementsAre(1us, 1us, 1us, 1us));
}

// Two steps of layer 1: gain 2 us, overhead 11.6 us of which 1.6 us grow with the batch of 6 tokens: the net gain is
// positive above 10 us * 6 / (2 - 1.6) us = 150 tokens.
TEST_F(StepRoutingTest, GainIsSummedByLayer) {
  Simulate("", NewRouting().get());
  EXPECT_EQ(gain_.steps(), 2);
  const RoutingWorth &first = gain_.layers()[0], &second = gain_.layers()[1];
  EXPECT_EQ(first.layer_steps, 2);
  EXPECT_EQ(first.routed_anew, 0);
  EXPECT_EQ(first.net_gain(), Duration{});
  EXPECT_EQ(first.kept_share(), 1);
  EXPECT_EQ(first.break_even_tokens(), std::nullopt);
  EXPECT_EQ(second.routed_anew, 2);
  EXPECT_EQ(second.balance_gain, 4us);
  EXPECT_EQ(second.overhead, 23200ns);
  EXPECT_EQ(second.net_gain(), -Duration(19200ns));
  EXPECT_DOUBLE_EQ(second.kept_share(), 2.0 / 6);
  EXPECT_EQ(second.dropped_share(), 0);
  ASSERT_TRUE(second.break_even_tokens().has_value());
  EXPECT_NEAR(*second.break_even_tokens(), 150, 1e-9);

  const RoutingWorth total = gain_.Total();
  EXPECT_EQ(total.layer_steps, 4);
  EXPECT_EQ(total.net_gain(), second.net_gain());
  EXPECT_DOUBLE_EQ(total.kept_share(), 8.0 / 12);
  EXPECT_NEAR(*total.break_even_tokens(), 150, 1e-9);
}

TEST(RoutingWorth, NoBatchRepaysAKernelThatGrowsFasterThanItsGain) {
  RoutingWorth worth{
      .routed_anew = 1, .balance_gain = 2us, .overhead = 12us, .empty_overhead = 10us, .batch_tokens = 6};
  EXPECT_EQ(worth.break_even_tokens(), std::nullopt);
  worth.balance_gain = -Duration(1us);
  EXPECT_EQ(worth.break_even_tokens(), std::nullopt);
  worth.balance_gain = 12us;
  EXPECT_EQ(worth.break_even_tokens(), 6) << "this batch breaks even";
}

// What a placement is planned on is the load as routed.
TEST_F(StepRoutingTest, RecordsTheLoadAsRouted) {
  GivenSteps source({batch_, batch_});
  const auto policy = NewRouting();
  const RecordedLoad load = RecordLoad(source, 2, kLayers, kExperts, 32, {}, nullptr, policy.get()).value();
  EXPECT_THAT(load.window.Total(), ElementsAre(12, 0, 0, 0, 4, 4, 2, 2));
}

}  // namespace
}  // namespace epsim
