#include "experiments/step_facts.h"

#include "gtest/gtest.h"

namespace epsim {
namespace {

using namespace std::chrono_literals;

TEST(Balancedness, IsMeanOverMax) {
  EXPECT_DOUBLE_EQ(Balancedness({4, 2, 0, 2}), 0.5);
  EXPECT_DOUBLE_EQ(Balancedness({3, 3}), 1);
  EXPECT_DOUBLE_EQ(Balancedness({0, 0}), 1);
}

class NoNetwork : public Network {
 public:
  PhaseId Start(StreamId, const TrafficMatrix&, absl::Span<const SimTime>, Listener) override { return PhaseId(0); }
  void Revise(PhaseId, absl::Span<const SimTime>) override {}
  absl::Span<const int64_t> bytes_on_link() const override { return bytes; }
  LinkClass limiting_class() const override { return LinkClass::kNvlink; }
  std::vector<int64_t> bytes;
};

class StepMeterTest : public testing::Test {
 protected:
  StepMeterTest() {
    PlatformSpec platform;
    platform.mutable_gpu()->set_name("gpu");
    platform.mutable_gpu()->set_memory("80 GB");
    platform.mutable_gpu()->set_memory_bandwidth("1 TB/s");
    platform.mutable_gpu()->set_bf16("100 TFLOP/s");
    platform.set_gpus_per_node(2);
    platform.mutable_nvlink()->set_bandwidth("1 GB/s");
    platform.mutable_nvlink()->set_latency("1 us");
    cluster_ = Cluster::Create(platform, 2).value();
    network_.bytes.resize(cluster_.links().size());
    meter_.emplace(cluster_, network_, 1, [this](const StepFacts& facts) { steps_.push_back(facts); });
  }

  // A stage of layer 0 with start and finish of ranks 0 and 1, from the start of the step.
  void Stage(StageKind kind, Duration s0, Duration s1, Duration f0, Duration f1,
             CostSource source = CostSource::kRoofline) {
    const SimTime start[] = {kBegin + s0, kBegin + s1}, finish[] = {kBegin + f0, kBegin + f1};
    meter_->OnStage({.kind = kind,
                     .layer = 0,
                     .source = source,
                     .link_class = LinkClass::kNvlink,
                     .start = start,
                     .finish = finish});
  }
  StepFacts End(Duration finish) {
    RoutedLayer layer;
    layer.tokens_per_slot = {3, 0, 1, 0};  // Rank 0: 3, rank 1: 1.
    const std::vector<Duration> expert_time = {30us, 20us};
    StepBatch batch;
    batch.index = 4;
    batch.tokens = 4;
    meter_->OnStepEnd({.start = kBegin,
                       .finish = kBegin + finish,
                       .batch = &batch,
                       .layers = absl::MakeConstSpan(&layer, 1),
                       .expert_time = expert_time});
    return steps_.back();
  }

  static constexpr SimTime kBegin{Duration(100us)};
  Cluster cluster_;
  NoNetwork network_;
  std::vector<StepFacts> steps_;
  std::optional<StepMeter> meter_;
};

Duration Of(const StepFacts& facts, StageKind kind) { return facts.by_stage[static_cast<size_t>(kind)]; }

// Two ranks.  Attention ends at 10 / 20, the router at 15 / 25, the experts at 50 / 45: the latest finish moves 20 us
// with attention and 5 us with the router (rank 1), 25 us with the experts (rank 0).
TEST_F(StepMeterTest, ChargesStagesByTheAdvanceOfTheLatestFinish) {
  Stage(StageKind::kAttention, 0us, 0us, 10us, 20us);
  Stage(StageKind::kRouter, 10us, 20us, 15us, 25us);
  Stage(StageKind::kRoutedExperts, 20us, 25us, 50us, 45us);
  for (int64_t& bytes : network_.bytes) bytes = 7;
  const StepFacts facts = End(50us);
  EXPECT_EQ(facts.step, 4);
  EXPECT_EQ(Of(facts, StageKind::kAttention), Duration(20us));
  EXPECT_EQ(Of(facts, StageKind::kRouter), Duration(5us));
  EXPECT_EQ(Of(facts, StageKind::kRoutedExperts), Duration(25us));
  EXPECT_EQ(facts.by_rank[0], Duration(25us));
  EXPECT_EQ(facts.by_rank[1], Duration(25us));
  EXPECT_EQ(facts.by_layer[0], Duration(50us));
  EXPECT_DOUBLE_EQ(facts.tokens_balancedness, 2.0 / 3);
  EXPECT_DOUBLE_EQ(facts.expert_time_balancedness, 25.0 / 30);
  // Busy: 10 + 5 + 30 = 45 and 20 + 5 + 20 = 45 of 50.
  EXPECT_DOUBLE_EQ(facts.busy, 0.9);
  EXPECT_DOUBLE_EQ(facts.min_over_max, 1);
  // Two outgoing NVLink ports carried 7 bytes each; incoming ports carry the same bytes and are not counted again.
  EXPECT_EQ(facts.bytes[static_cast<size_t>(LinkClass::kNvlink)], 14);
}

// Shared experts 10-25 beside a dispatch 10-40: of the 30 us, computing covers 15; 15 of the dispatch are exposed.
TEST_F(StepMeterTest, AnExchangeIsChargedWhatComputingDoesNotCover) {
  Stage(StageKind::kRouter, 0us, 0us, 10us, 10us);
  Stage(StageKind::kSharedExperts, 10us, 10us, 25us, 25us);
  Stage(StageKind::kDispatch, 10us, 10us, 40us, 40us, CostSource::kNetwork);
  const StepFacts facts = End(40us);
  EXPECT_EQ(Of(facts, StageKind::kSharedExperts), Duration(15us));
  EXPECT_EQ(Of(facts, StageKind::kDispatch), Duration(15us));
  EXPECT_EQ(facts.by_source[static_cast<size_t>(CostSource::kNetwork)], Duration(15us));
  EXPECT_EQ(facts.by_link_class[static_cast<size_t>(LinkClass::kNvlink)], Duration(15us));
}

// They end at 55, the dispatch at 40: the dispatch is told of first and charged its 30 us, they what is beyond.
TEST_F(StepMeterTest, ComputingIsChargedWhatItTakesBeyondAnExchange) {
  Stage(StageKind::kRouter, 0us, 0us, 10us, 10us);
  Stage(StageKind::kSharedExperts, 10us, 10us, 55us, 55us);
  Stage(StageKind::kDispatch, 10us, 10us, 40us, 40us);
  const StepFacts facts = End(55us);
  EXPECT_EQ(Of(facts, StageKind::kSharedExperts), Duration(15us));
  EXPECT_EQ(Of(facts, StageKind::kDispatch), Duration(30us));
}

// Two halves of a batch: the experts of one (20-50) are told of before the dispatch of the other (20-45), which ends
// earlier.  It is charged 25 us, they the 5 us beyond it.
TEST_F(StepMeterTest, StagesAreChargedInTheOrderOfTheirFinishes) {
  Stage(StageKind::kAttention, 0us, 0us, 20us, 20us);
  Stage(StageKind::kRoutedExperts, 20us, 20us, 50us, 30us);
  Stage(StageKind::kDispatch, 20us, 20us, 40us, 45us);
  const StepFacts facts = End(50us);
  EXPECT_EQ(Of(facts, StageKind::kDispatch), Duration(25us));
  EXPECT_EQ(Of(facts, StageKind::kRoutedExperts), Duration(5us));
  EXPECT_EQ(facts.by_rank[1], Duration(25us));
  EXPECT_EQ(facts.by_rank[0], Duration(25us));
}

// Of two that end at once the first of the program is charged.
TEST_F(StepMeterTest, EqualFinishesAreChargedInTheOrderOfTheProgram) {
  Stage(StageKind::kSharedExperts, 0us, 0us, 30us, 30us);
  Stage(StageKind::kDispatch, 0us, 0us, 30us, 30us);
  const StepFacts facts = End(30us);
  EXPECT_EQ(Of(facts, StageKind::kSharedExperts), Duration(30us));
  EXPECT_EQ(Of(facts, StageKind::kDispatch), Duration(0));
}

// Without overlap the dispatch starts when they have ended, and both are charged whole.
TEST_F(StepMeterTest, SharedExpertsThatDispatchWaitsForAreChargedWhole) {
  Stage(StageKind::kRouter, 0us, 0us, 10us, 10us);
  Stage(StageKind::kSharedExperts, 10us, 10us, 25us, 25us);
  Stage(StageKind::kDispatch, 25us, 25us, 55us, 55us);
  const StepFacts facts = End(55us);
  EXPECT_EQ(Of(facts, StageKind::kSharedExperts), Duration(15us));
  EXPECT_EQ(Of(facts, StageKind::kDispatch), Duration(30us));
}

}  // namespace
}  // namespace epsim
