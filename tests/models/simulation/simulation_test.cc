// Whole steps: a batch that is cut into pieces is routed and computed as a whole would be, and what cannot run says so.
#include "models/simulation/simulation.h"

#include <memory>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "policies/replica/static_replica_choice.h"
#include "tests/models/simulation/given_steps.h"

namespace epsim {
namespace {

using ::testing::ElementsAreArray;
using ::testing::HasSubstr;

constexpr int kRanks = 2, kLayers = 2, kExperts = 8, kTopK = 2;

class Admits : public ByteATokenCommunication {
 public:
  absl::Status Admit(const ForwardShape& shape) override {
    asked.push_back(shape);
    return shape.chunks > most_chunks ? absl::FailedPreconditionError("one chunk would do") : absl::OkStatus();
  }
  int most_chunks = 1000;
  std::vector<ForwardShape> asked;
};

struct SeenStep {
  std::vector<RoutedLayer> layers;
  std::vector<Duration> expert_time;
  SimTime finish;
};

class StepRecords : public Observer {
 public:
  void OnStage(const StageRecord&) override { ++stages; }
  void OnStepEnd(const StepRecord& step) override {
    steps.push_back({std::vector<RoutedLayer>(step.layers.begin(), step.layers.end()),
                     std::vector<Duration>(step.expert_time.begin(), step.expert_time.end()), step.finish});
  }
  int stages = 0;
  std::vector<SeenStep> steps;
};

class SimulationTest : public ForwardPassTest {
 protected:
  SimulationTest() {
    model_.set_layers(kLayers);
    model_.set_moe_layers(kLayers);
    // Slot s holds expert kExperts - 1 - s.
    for (int i = kLayers * kExperts; i > 0; --i) experts_of_slots_.push_back(LogicalExpert((i - 1) % kExperts));
    RandomStream random(1, "ids");
    for (std::byte& id : ids_) id = static_cast<std::byte>(random.Below(kExperts / 2));
    // Two experts that differ: one of the first half, one of the second.
    for (size_t i = 1; i < ids_.size(); i += 2) {
      ids_[i] = static_cast<std::byte>(kExperts / 2 + static_cast<int>(random.Below(kExperts / 2)));
    }
    SetTokens({9, 4});
    batch_.index = 7;
    batch_.layers = kLayers;
    batch_.top_k = kTopK;
    batch_.ids = ids_.data();
    batch_.layer_stride = 13 * kTopK;
  }

  absl::Status Simulate(const std::string& schedule) {
    SetSchedule(schedule);
    const Cluster cluster = Cluster::Create(platform_, kRanks).value();
    EventQueue queue;
    FixedNetwork network(&queue, delay_);
    records_ = {};
    GivenSteps source({batch_, batch_});
    const auto choice = NewStaticReplicaChoice();
    PlacedRouting routing(Placement(shape_, experts_of_slots_), choice.get(), 1, {});
    Simulation simulation({.model = &model_,
                           .cluster = &cluster,
                           .costs = &pair_costs_,
                           .expert_cost_scale = scale_.get(),
                           .communication = &admits_,
                           .schedule = CompleteScheduleConfig(schedule_).value(),
                           .network = &network,
                           .queue = &queue,
                           .observers = {&records_}},
                          &routing);
    return Replay(source, {&simulation}, {});
  }

  const PlacementShape shape_{.layers = kLayers, .experts = kExperts, .slots = kExperts, .ranks = kRanks};
  std::vector<LogicalExpert> experts_of_slots_;
  std::unique_ptr<const ExpertCostScale> scale_;
  std::vector<std::byte> ids_ = std::vector<std::byte>(kLayers * 13 * kTopK);
  CostsByPair pair_costs_;
  Admits admits_;
  StepRecords records_;
};

// However a batch is cut, each token is routed once.
TEST_F(SimulationTest, PiecesAddUpToTheWhole) {
  ASSERT_TRUE(Simulate("").ok());
  const std::vector<SeenStep> whole = records_.steps;
  ASSERT_EQ(whole.size(), 2u);
  ASSERT_EQ(whole[0].layers[0].pairs, 13 * kTopK);
  const int stages = records_.stages;
  for (const char* schedule : {"max_tokens: 18", "max_tokens: 5", "max_tokens: 2", "max_tokens: 3 fused {}",
                               "external { two_batch_overlap {} }", "external { two_batch_overlap { order: PREFILL } }",
                               "max_tokens: 5 external { padding: ALWAYS }"}) {
    SCOPED_TRACE(schedule);
    ASSERT_TRUE(Simulate(schedule).ok());
    ASSERT_EQ(records_.steps.size(), whole.size());
    EXPECT_EQ(records_.stages == stages, std::string(schedule) == "max_tokens: 18");
    for (size_t step = 0; step < whole.size(); ++step) {
      for (int layer = 0; layer < kLayers; ++layer) {
        const RoutedLayer &seen = records_.steps[step].layers[layer], &wanted = whole[step].layers[layer];
        EXPECT_THAT(seen.tokens_per_slot, ElementsAreArray(wanted.tokens_per_slot));
        EXPECT_THAT(seen.tokens_between, ElementsAreArray(wanted.tokens_between));
        EXPECT_THAT(seen.tokens, ElementsAreArray({9, 4}));
        EXPECT_EQ(seen.pairs, wanted.pairs);
      }
      EXPECT_THAT(records_.steps[step].expert_time, ElementsAreArray(whole[step].expert_time));
    }
  }
}

// Expert e of layer l costs 1 + e + l times as much.
TEST_F(SimulationTest, AnExpertTakesItsScaleWhereverItLies) {
  std::vector<double> scale;
  for (int layer = 0; layer < kLayers; ++layer) {
    for (int expert = 0; expert < kExperts; ++expert) scale.push_back(1 + expert + layer);
  }
  scale_ = std::make_unique<const ExpertCostScale>(kExperts, scale);
  for (const char* schedule : {"", "max_tokens: 5"}) {
    ASSERT_TRUE(Simulate(schedule).ok());
    for (const SeenStep& step : records_.steps) {
      for (int layer = 0; layer < kLayers; ++layer) {
        for (int rank = 0; rank < kRanks; ++rank) {
          Duration time{};
          for (int slot = rank * kExperts / kRanks; slot < (rank + 1) * kExperts / kRanks; ++slot) {
            const int expert = kExperts - 1 - slot;
            time += Duration(1us) * step.layers[layer].tokens_per_slot[slot] * (1 + expert + layer);
          }
          EXPECT_EQ(step.expert_time[layer * kRanks + rank], time) << "layer " << layer << ", rank " << rank;
        }
      }
    }
  }
}

TEST_F(SimulationTest, OneChunkTakesAsLongAsNoChunking) {
  ASSERT_TRUE(Simulate("").ok());
  const SimTime whole = records_.steps.back().finish;
  ASSERT_TRUE(Simulate("max_tokens: 18").ok());
  EXPECT_EQ(records_.steps.back().finish, whole);
  ASSERT_TRUE(Simulate("max_tokens: 17").ok());
  EXPECT_GT(records_.steps.back().finish, whole);
}

// ceil(2 * 9 / 5) = 4 chunks, of which the first has 3 of rank 0's 9 tokens.
TEST_F(SimulationTest, TheStrategyIsAskedBeforeEachStep) {
  ASSERT_TRUE(Simulate("max_tokens: 5").ok());
  ASSERT_EQ(admits_.asked.size(), 2u);
  EXPECT_EQ(admits_.asked[0].chunks, 4);
  EXPECT_EQ(admits_.asked[0].max_tokens_per_rank, 3);
  admits_.most_chunks = 1;
  const absl::Status refused = Simulate("max_tokens: 5");
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(refused.message(), HasSubstr("step 7, of 13 tokens: one chunk would do"));
}

}  // namespace
}  // namespace epsim
