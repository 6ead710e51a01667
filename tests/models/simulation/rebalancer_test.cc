// Whole steps under a balancer, on a network and at costs that can be worked by hand: what stands still when, and for
// how long.
#include "models/simulation/rebalancer.h"

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/simulation/simulation.h"
#include "models/simulation/workers.h"
#include "policies/rebalance/rebalance_config.h"
#include "policies/replica/static_replica_choice.h"
#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr int kRanks = 2, kLayers = 2, kExperts = 4;

// With two layers a step of 1 and 2 tokens goes like this, on ranks 0 and 1:
//   attention 10 20, router 11 21, dispatch 121 125, experts 147 151, combine 251 255,
//   attention 261 275, router 262 276, dispatch 376 380, experts 402 406, combine 506 510, LM head 508 512.
constexpr Duration kStep = 512us;

// Places as it is told, and remembers what it was asked.
class ToldPlacement : public PlacementPolicy {
 public:
  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    layers_asked.emplace_back(request.layers.begin(), request.layers.end());
    windows.push_back(request.window.Total());
    return next;
  }
  std::vector<Layer> change_order() const override { return order; }

  Placement next;
  std::vector<Layer> order;
  std::vector<std::vector<Layer>> layers_asked;
  std::vector<std::vector<double>> windows;
};

class EqualExperts : public ConstantCosts {
 public:
  Cost RoutedExperts(absl::Span<const int32_t>, absl::Span<const double>) const override { return {26us}; }
};

class StepTimes : public Diary {
 public:
  void OnStage(const StageRecord& stage) override {
    // Serving stands still: no layer of the model.
    if (stage.layer == kLayers && stage.kind != StageKind::kLmHead) Diary::OnStage(stage);
  }
  void OnStepEnd(const StepRecord& step) override { length.push_back(step.finish - step.start); }
  std::vector<Duration> length;
};

// Slots 0 and 1 are rank 0's.  An expert has 1000 bytes and memory copies 1 GB/s, so that an expert copied takes 2 us.
class RebalancerTest : public ForwardPassTest {
 protected:
  RebalancerTest() {
    model_.set_layers(kLayers);
    model_.set_moe_layers(kLayers);
    batch_.layers = kLayers;
    batch_.top_k = 1;
    batch_.ids = ids_.data();
    batch_.layer_stride = 3;
    policy_.next = Across();
  }

  // Of each layer, the experts of its four slots.
  Placement Holding(const std::vector<int>& layer0, const std::vector<int>& layer1) const {
    std::vector<LogicalExpert> experts;
    for (const auto* layer : {&layer0, &layer1}) {
      for (const int expert : *layer) experts.push_back(LogicalExpert(expert));
    }
    return Placement(shape_, experts);
  }
  Placement InOrder() const { return Holding({0, 1, 2, 3}, {0, 1, 2, 3}); }
  // Each rank gives one expert to the other, in both layers.
  Placement Across() const { return Holding({2, 1, 0, 3}, {2, 1, 0, 3}); }

  // Runs steps under "mode" with plans of 10 us a layer, launched in 5 us, every two steps.
  void Simulate(const std::string& mode, int steps, const std::string& more = "") {
    RebalanceConfig config, more_config;
    ASSERT_TRUE(
        ParseTextProto(mode + " planning_time_per_layer: '10 us' migration { launch: '5 us' }", "a test", &config)
            .ok());
    ASSERT_TRUE(ParseTextProto(more, "a test", &more_config).ok());
    config.MergeFrom(more_config);
    if (config.interval_steps() == 0 && !config.has_online()) config.set_interval_steps(2);
    const Cluster cluster = Cluster::Create(platform_, kRanks).value();
    EventQueue queue;
    FixedNetwork network(&queue, delay_);
    network.weights = weights_;
    const auto choice = NewStaticReplicaChoice();
    PlacedRouting routing(first_, choice.get(), 1, {});
    times_ = {};
    policy_.layers_asked.clear();
    policy_.windows.clear();
    slots_.clear();
    Simulation simulation({.model = &model_,
                           .cluster = &cluster,
                           .costs = &equal_costs_,
                           .communication = &communication_,
                           .schedule = CompleteScheduleConfig({}).value(),
                           .network = &network,
                           .queue = &queue,
                           .observers = {&times_}},
                          &routing,
                          {.config = CompleteRebalanceConfig(config).value(),
                           .policy = &policy_,
                           .expert_bytes = Bytes(1000),
                           .copy_rate = BytesPerSecond(1'000'000'000),
                           .elastic = CompleteElasticConfig(elastic_).value()});
    Workers workers(1);
    for (int step = 0; step < steps; ++step) {
      batch_.index = step;
      ASSERT_TRUE(simulation.RunStep(batch_, workers, {}).ok());
      // By their first slot: 0 as they were, 2 as they are to be.
      slots_.emplace_back();
      for (int layer = 0; layer < kLayers; ++layer) {
        slots_.back().push_back(static_cast<int>(Index(routing.placement().experts_of_slots(Layer(layer))[0])));
      }
    }
    records_.assign(simulation.rebalances().begin(), simulation.rebalances().end());
    bytes_ = network.bytes;
  }

  PlacementShape shape_{.layers = kLayers, .experts = kExperts, .slots = kExperts, .ranks = kRanks};
  // Two tokens of expert 0 and one of expert 3, in both layers.
  const std::vector<std::byte> ids_ = {std::byte{0}, std::byte{0}, std::byte{3},
                                       std::byte{0}, std::byte{0}, std::byte{3}};
  EqualExperts equal_costs_;
  ToldPlacement policy_;
  Placement first_ = InOrder();
  Duration weights_{};  // What moving them takes beyond an exchange of the batch.
  ElasticConfig elastic_;
  StepTimes times_;
  std::vector<RebalanceRecord> records_;
  std::vector<std::vector<int>> slots_;  // [steps, layers]: the expert of slot 0 in the step.
};

TEST_F(RebalancerTest, WithoutAModeNothingHappens) {
  Simulate("none {}", 5);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep, kStep, kStep));
  EXPECT_THAT(records_, IsEmpty());
  EXPECT_THAT(policy_.layers_asked, IsEmpty());
}

// Before the third step serving stands still: 2 layers planned in 20 us, 5 us until the first byte, 104 us until the
// last rank has heard all.
TEST_F(RebalancerTest, BlockingStandsStillForPlanAndTransfer) {
  Simulate("blocking {}", 4);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 129us, kStep));
  EXPECT_THAT(times_.lines, ElementsAre("planning/2: 1024-1044 1024-1044", "migration/2: 1044-1153 1044-1153"));
  EXPECT_THAT(slots_, ElementsAre(ElementsAre(0, 0), ElementsAre(0, 0), ElementsAre(2, 2), ElementsAre(2, 2)));
  ASSERT_EQ(records_.size(), 1u);
  const RebalanceRecord& record = records_[0];
  EXPECT_EQ(record.step, 2);
  EXPECT_EQ(record.time, SimTime(1024us));
  EXPECT_EQ(record.reason, "due after 2 steps");
  EXPECT_EQ(record.skipped, "");
  EXPECT_EQ(record.layers, 2);
  EXPECT_EQ(record.slots, 4);
  EXPECT_THAT(record.bytes, ElementsAre(0, 4000, 0, 0));
  EXPECT_EQ(record.planning, Duration(20us));
  EXPECT_EQ(record.stall, Duration(129us));
  EXPECT_EQ(record.settled, SimTime(1153us));
  // Of both layers together, in one transfer after the 8 exchanges of two steps.
  EXPECT_THAT(bytes_[8], ElementsAre(0, 2000, 2000, 0));
  // What was asked: all layers, on two steps' tokens.
  EXPECT_THAT(policy_.layers_asked, ElementsAre(ElementsAre(Layer(0), Layer(1))));
  EXPECT_THAT(policy_.windows, ElementsAre(ElementsAre(4, 0, 0, 2, 4, 0, 0, 2)));
}

// Each rank has received 2 experts: 4 us more to copy them out of the buffer.
TEST_F(RebalancerTest, ABufferCostsACopy) {
  Simulate("blocking {}", 3, "migration { buffered: true }");
  EXPECT_EQ(times_.length[2], kStep + 133us);
  EXPECT_THAT(times_.lines, ElementsAre("planning/2: 1024-1044 1024-1044", "migration/2: 1044-1153 1044-1153",
                                        "migration/2: 1153-1157 1153-1157"));
  EXPECT_EQ(records_[0].stall, Duration(133us));
}

// Rank 0 swaps its two experts in layer 1: 20 us of planning, 5 us of launching, 2 experts copied in 4 us; nothing
// travels.
TEST_F(RebalancerTest, MovesWithinAGpuAreCopies) {
  policy_.next = Holding({0, 1, 2, 3}, {1, 0, 2, 3});
  Simulate("blocking {}", 3);
  EXPECT_EQ(times_.length[2], kStep + 29us);
  EXPECT_EQ(records_[0].layers, 1);
  EXPECT_EQ(records_[0].slots, 2);
  EXPECT_THAT(records_[0].bytes, ElementsAre(2000, 0, 0, 0));
  EXPECT_EQ(bytes_.size(), 12u) << "the exchanges of three steps";
}

TEST_F(RebalancerTest, APlanThatChangesNothingCostsItsPlanning) {
  policy_.next = InOrder();
  Simulate("blocking {}", 5);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 20us, kStep, kStep + 20us));
  ASSERT_EQ(records_.size(), 2u);
  EXPECT_EQ(records_[1].slots, 0);
  EXPECT_EQ(records_[1].layers, 0);
}

// Counts that do not ride along are gathered first, by an exchange of its own: 104 us.
TEST_F(RebalancerTest, StatisticsAreGatheredBeforeThePlan) {
  communication_.made_of.statistics_ride_along = false;
  Simulate("blocking {}", 3);
  EXPECT_EQ(times_.length[2], kStep + 104us + 129us);
  EXPECT_EQ(times_.lines[0], "statistics/2: 1024-1128 1024-1128");
  EXPECT_EQ(records_[0].stall, Duration(233us));
}

// The plan is made before step 2, which then runs; one layer moves before step 3, 5 + 104 us, the other before step 4.
TEST_F(RebalancerTest, ChunkedLetsAStepPassBeforeTheFirstOfSeveralChunks) {
  Simulate("chunked { layers_per_chunk: 1 }", 6);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 20us, kStep + 109us, kStep + 109us, kStep));
  EXPECT_THAT(slots_, ElementsAre(ElementsAre(0, 0), ElementsAre(0, 0), ElementsAre(0, 0), ElementsAre(2, 0),
                                  ElementsAre(2, 2), ElementsAre(2, 2)));
  ASSERT_EQ(records_.size(), 1u);
  EXPECT_EQ(records_[0].step, 2);
  EXPECT_EQ(records_[0].stall, Duration(238us));
  // Two steps and the plan, another step, and the transfers: 4 * 512 + 20 + 109 + 109.
  EXPECT_EQ(records_[0].settled, SimTime(2286us));
}

TEST_F(RebalancerTest, OneChunkMovesAtOnce) {
  Simulate("chunked { layers_per_chunk: 2 }", 4);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 129us, kStep));
  EXPECT_THAT(slots_[2], ElementsAre(2, 2));
}

// The next interval begins when the last chunk is in force, before step 4: the second plan comes before step 6.  It
// changes nothing, and its two chunks cost nothing.
TEST_F(RebalancerTest, ChunkedCountsFromTheEndOfTheRebalance) {
  Simulate("chunked { layers_per_chunk: 1 }", 9);
  EXPECT_THAT(times_.length,
              ElementsAre(kStep, kStep, kStep + 20us, kStep + 109us, kStep + 109us, kStep, kStep + 20us, kStep, kStep));
  ASSERT_EQ(records_.size(), 2u);
  EXPECT_EQ(records_[1].step, 6);
}

TEST_F(RebalancerTest, ThePolicySaysWhichLayerIsMostUrgent) {
  policy_.order = {Layer(1)};
  Simulate("chunked { layers_per_chunk: 1 }", 4);
  EXPECT_THAT(slots_[3], ElementsAre(0, 2));
}

// Serving waits for the plan, 20 us, and for a copy out of the buffer for each layer, 2 us; the 109 us of each transfer
// pass beside a step.
TEST_F(RebalancerTest, AsyncLayerSwitchesALayerAStepWhereTransfersAreQuick) {
  Simulate("async_layer {}", 6, "interval_steps: 100 first_after_steps: 2");
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 20us, kStep + 2us, kStep + 2us, kStep));
  EXPECT_THAT(slots_, ElementsAre(ElementsAre(0, 0), ElementsAre(0, 0), ElementsAre(0, 0), ElementsAre(2, 0),
                                  ElementsAre(2, 2), ElementsAre(2, 2)));
  ASSERT_EQ(records_.size(), 1u);
  EXPECT_EQ(records_[0].stall, Duration(24us));
  EXPECT_EQ(records_[0].slots, 4);
  // One transfer of a layer each, the first among the exchanges of step 2.
  EXPECT_EQ(bytes_.size(), 6 * 4 + 2u);
}

// A transfer of 5 + 104 + 500 us outlives a step: the layer switches before step 4, the next one before step 6.  The
// second plan, due before step 4, waits for that and is made before step 7.
TEST_F(RebalancerTest, AsyncLayerWaitsForTheTransferNotForTheStep) {
  weights_ = 500us;
  Simulate("async_layer {}", 8);
  EXPECT_THAT(times_.length,
              ElementsAre(kStep, kStep, kStep + 20us, kStep, kStep + 2us, kStep, kStep + 2us, kStep + 20us));
  EXPECT_THAT(slots_[3], ElementsAre(0, 0));
  EXPECT_THAT(slots_[4], ElementsAre(2, 0));
  EXPECT_THAT(slots_[5], ElementsAre(2, 0));
  EXPECT_THAT(slots_[6], ElementsAre(2, 2));
  ASSERT_EQ(records_.size(), 2u);
  EXPECT_EQ(records_[1].step, 7);
}

// Planned beside step 2, in 20 us, the first layer starts to move before step 3 and is in force in step 4.
TEST_F(RebalancerTest, ABackgroundPlanHoldsNothingUp) {
  Simulate("async_layer { background_planning: true }", 6);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep, kStep, kStep + 2us, kStep + 2us));
  EXPECT_THAT(slots_[3], ElementsAre(0, 0));
  EXPECT_THAT(slots_[4], ElementsAre(2, 0));
  EXPECT_THAT(slots_[5], ElementsAre(2, 2));
  EXPECT_EQ(records_[0].planning, Duration(20us));
  EXPECT_EQ(records_[0].stall, Duration(4us));
}

TEST_F(RebalancerTest, AsyncLayersThatStayTakeNoTurn) {
  policy_.next = Holding({0, 1, 2, 3}, {2, 1, 0, 3});
  Simulate("async_layer {}", 4);
  EXPECT_THAT(slots_[2], ElementsAre(0, 0));
  EXPECT_THAT(slots_[3], ElementsAre(0, 2));
  EXPECT_EQ(records_[0].layers, 1);
}

// Two layers at one a step take three turns: the first, the second, none.
TEST_F(RebalancerTest, OnlinePlansTheLayersInTurn) {
  Simulate("online {}", 6);
  EXPECT_THAT(policy_.layers_asked,
              ElementsAre(ElementsAre(Layer(0)), ElementsAre(Layer(1)), ElementsAre(Layer(0)), ElementsAre(Layer(1))));
  // Quick transfers hold nothing up.
  for (const Duration length : times_.length) EXPECT_EQ(length, kStep);
  EXPECT_THAT(slots_, ElementsAre(ElementsAre(0, 0), ElementsAre(2, 0), ElementsAre(2, 2), ElementsAre(2, 2),
                                  ElementsAre(2, 2), ElementsAre(2, 2)));
  // From the hosts.
  EXPECT_THAT(records_[0].bytes, ElementsAre(0, 0, 0, 2000));
  EXPECT_EQ(records_[0].slots, 2);
}

// Layer 0's combine ends at 255: 200 us of planning and 5 us of launching later, at 460, two experts are loaded, in 104
// us.  Step 1 began at 512; its routers of layer 0 would end at 523 and 533.  They wait until 564, rank 0 for 41 us:
// the step's pace is rank 1's, 31 us late, but the dispatch waits for the latest.
TEST_F(RebalancerTest, OnlineGatesTheLayerWhoseWeightsAreLate) {
  Simulate("online {}", 2, "planning_time_per_layer: \"200 us\"");
  EXPECT_THAT(slots_[1], ElementsAre(2, 0));
  EXPECT_EQ(records_[0].settled, SimTime(564us));
  EXPECT_EQ(records_[0].planning, Duration(200us));
  EXPECT_EQ(records_[0].stall, Duration(41us));
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep + 31us));
}

// One CPU thread plans both layers: layer 0 from 255 to 555, layer 1, whose combine ends at 510, from 555 to 855. Their
// weights are there at 555 + 5 + 104 = 664 and at 964.  In step 1, from 512, layer 0's routers wait until 664, 131 us
// longer than rank 1's work; then layer 1's would end at 664 + 251 and 664 + 255, with rank 0's own pace set by the
// dispatch: dispatch 764 768, experts 790 794, combine 894 898, attention 904 918, router 905 919; they wait until 964.
TEST_F(RebalancerTest, OnlinePlansOneLayerAfterTheOther) {
  Simulate("online { layer_updates_per_iter: 2 }", 2, "planning_time_per_layer: \"300 us\"");
  EXPECT_THAT(policy_.layers_asked[0], ElementsAre(Layer(0)));
  EXPECT_THAT(policy_.layers_asked[1], ElementsAre(Layer(1)));
  EXPECT_EQ(records_[0].planning, Duration(600us));
  EXPECT_EQ(records_[0].settled, SimTime(964us));
  // 664 - 523 and 964 - 905.
  EXPECT_EQ(records_[0].stall, Duration(141us + 59us));
  // 131 us in layer 0; in layer 1, 964 - 919.
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep + 131us + 45us));
}

// The utilisation of every step is (1.5 / 2 + 1.5 / 2) / 2: rank 0 has two tokens of three.
TEST_F(RebalancerTest, AThresholdSkipsWithItsReason) {
  Simulate("blocking {}", 5, "min_utilization_threshold: 0.7");
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep, kStep, kStep));
  ASSERT_EQ(records_.size(), 2u);
  EXPECT_EQ(records_[0].skipped, "utilisation 0.750 is above the threshold");
  EXPECT_EQ(records_[1].step, 4);
  EXPECT_THAT(policy_.layers_asked, IsEmpty());
  Simulate("blocking {}", 3, "min_utilization_threshold: 0.8");
  EXPECT_EQ(records_[0].skipped, "");
  EXPECT_EQ(records_[0].slots, 4);
}

// With four slots a rank, each expert twice.
class Failing : public RebalancerTest {
 protected:
  Failing() {
    shape_.slots = 8;
    const std::vector<int> before = {0, 1, 0, 1, 2, 3, 2, 3}, after = {-1, -1, -1, -1, 0, 1, 2, 3};
    first_ = Holding(before, before);
    policy_.next = Holding(after, after);
    Failure& failure = *elastic_.add_failures();
    failure.set_rank(0);
    failure.set_at("600 us");
    elastic_.set_detection_time("7 us");
  }
};

// A failure at 600 us is seen when step 1 has ended, at 1024; 7 us until it is noticed, 20 us of planning, 5 + 104 us
// for the two experts that only rank 0 held, in each layer, from the host.
TEST_F(Failing, ServingStandsStillUntilTheExpertsArePlacedAnew) {
  Simulate("none {}", 4);
  EXPECT_THAT(times_.lines, ElementsAre("detection/2: 1024-1031 1024-1031", "planning/2: 1031-1051 1031-1051",
                                        "migration/2: 1051-1160 1051-1160"));
  ASSERT_EQ(records_.size(), 1u);
  EXPECT_TRUE(records_[0].membership);
  EXPECT_EQ(records_[0].reason, "rank 0 failed");
  EXPECT_EQ(records_[0].stall, Duration(136us));
  EXPECT_EQ(records_[0].settled, SimTime(1160us));
  EXPECT_EQ(records_[0].slots, 4);
  EXPECT_THAT(records_[0].bytes, ElementsAre(0, 0, 0, 4000));
  // Two steps of 3 tokens in 512 us each; then rank 1 has all three: attention takes 30 us instead of 20, twice.
  EXPECT_DOUBLE_EQ(records_[0].tokens_per_s_before, 3 / 512e-6);
  EXPECT_DOUBLE_EQ(records_[0].tokens_per_s_after.value(), 3 / 532e-6);
  EXPECT_THAT(times_.length, ElementsAre(kStep, kStep, kStep + 136us + 20us, kStep + 20us));
}

// Where no load has been seen, all experts count alike.
TEST_F(Failing, BeforeTheFirstStep) {
  elastic_.mutable_failures(0)->set_at("0 s");
  Simulate("none {}", 1);
  EXPECT_EQ(records_[0].step, 0);
  EXPECT_EQ(records_[0].tokens_per_s_before, 0);
  EXPECT_THAT(policy_.windows, ElementsAre(Each(1)));
}

// Where nothing else is asked for, a failure is not the beginning of rebalancing at intervals.
TEST_F(Failing, StartsNoRebalancing) {
  for (const char* mode : {"none {}", "online {}"}) {
    Simulate(mode, 12, "interval_steps: 1");
    ASSERT_FALSE(records_.empty());
    for (const RebalanceRecord& record : records_) {
      EXPECT_TRUE(record.membership || record.reason == "each step some layers") << mode << ": " << record.reason;
    }
  }
}

}  // namespace
}  // namespace epsim
