// The schedule of one forward pass, worked by hand: constant costs, a network whose exchanges take a fixed time after
// the last release.
#include "models/simulation/forward_pass.h"

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using namespace std::chrono_literals;
using ::testing::ElementsAre;

class ConstantCosts : public CostModel {
 public:
  Cost Attention(const AttentionLoad& load) const override { return {Duration(10us) * load.tokens}; }
  Cost DenseMlp(int64_t) const override { return {5us}; }
  Cost Router(int64_t) const override { return {1us}; }
  Cost SharedExperts(int64_t) const override { return {shared}; }
  Cost RoutedExperts(absl::Span<const int32_t>) const override { return {}; }
  Cost LmHead(int64_t) const override { return {2us}; }
  Bytes DispatchBytesPerToken() const override { return Bytes(1); }
  Bytes CombineBytesPerToken() const override { return Bytes(1); }

  Duration shared{0};
};

// Rank r finishes `delay[r]` after the last release; a test may move a finish that is still to come.
class FixedNetwork : public Network {
 public:
  FixedNetwork(EventQueue* queue, std::vector<Duration> delay) : queue_(queue), delay_(std::move(delay)) {}

  PhaseId Start(StreamId, const TrafficMatrix&, absl::Span<const SimTime> release, Listener listener) override {
    phases_.push_back({std::move(listener), {}, 0});
    const PhaseId id{static_cast<int64_t>(phases_.size()) - 1};
    Revise(id, release);
    return id;
  }
  void Revise(PhaseId id, absl::Span<const SimTime> release) override {
    PhaseState& phase = phases_[static_cast<size_t>(id)];
    const SimTime last = *std::max_element(release.begin(), release.end());
    phase.finish.clear();
    for (Duration delay : delay_) phase.finish.push_back(last + delay);
    const int version = ++phase.version;
    queue_->Schedule(*std::min_element(phase.finish.begin(), phase.finish.end()), Phase::kComplete,
                     [this, id, version] {
                       if (phases_[static_cast<size_t>(id)].version == version) Report(id);
                     });
  }
  void Report(PhaseId id) {
    const std::vector<SimTime> finish = phases_[static_cast<size_t>(id)].finish;
    phases_[static_cast<size_t>(id)].listener(id, finish);
  }
  // Reports phase `id` again with rank `rank` `later`.
  void Delay(int64_t id, int rank, Duration later) {
    phases_[id].finish[rank] += later;
    Report(PhaseId(id));
  }
  absl::Span<const int64_t> bytes_on_link() const override { return {}; }
  LinkClass limiting_class() const override { return LinkClass::kNvlink; }

 private:
  struct PhaseState {
    Listener listener;
    std::vector<SimTime> finish;
    int version;
  };
  EventQueue* queue_;
  std::vector<Duration> delay_;
  std::deque<PhaseState> phases_;
};

class NoTraffic : public Communication {
 public:
  void Dispatch(const RoutedLayer&, TrafficMatrix*) const override {}
  void Combine(const RoutedLayer&, TrafficMatrix*) const override {}
};

// Writes "kind/layer: start-finish start-finish" in microseconds, one entry a stage.
class Diary : public Observer {
 public:
  void OnStage(const StageRecord& stage) override {
    std::string line = std::string(Name(stage.kind)) + "/" + std::to_string(stage.layer) + ":";
    for (size_t r = 0; r < stage.start.size(); ++r) {
      line += " " + std::to_string(stage.start[r].time_since_epoch() / Duration(1us)) + "-" +
              std::to_string(stage.finish[r].time_since_epoch() / Duration(1us));
    }
    lines.push_back(line);
  }
  void OnStepEnd(const StepRecord&) override {}
  std::vector<std::string> lines;
};

class ForwardPassTest : public testing::Test {
 protected:
  ForwardPassTest() {
    model_.set_layers(1);
    model_.set_moe_layers(1);
    PlatformSpec platform;
    platform.mutable_gpu()->set_name("gpu");
    platform.mutable_gpu()->set_memory("80 GB");
    platform.mutable_gpu()->set_memory_bandwidth("1 TB/s");
    platform.mutable_gpu()->set_bf16("100 TFLOP/s");
    platform.set_gpus_per_node(2);
    platform.mutable_nvlink()->set_bandwidth("1 GB/s");
    platform.mutable_nvlink()->set_latency("1 us");
    cluster_ = Cluster::Create(platform, 2).value();
    batch_.tokens = 3;
    batch_.attention = {{.tokens = 1}, {.tokens = 2}};
    schedule_.set_overlap_shared_experts(true);
  }

  // Runs one step and returns the diary.  Experts take 30 us on rank 0 and 7 us on rank 1.
  std::vector<std::string> Run(const std::function<void(EventQueue&, FixedNetwork&)>& meanwhile = {}) {
    EventQueue queue;
    FixedNetwork network(&queue, {100us, 104us});
    Diary diary;
    NoTraffic communication;
    ForwardPass pass({.model = &model_,
                      .cluster = &cluster_,
                      .costs = &costs_,
                      .communication = &communication,
                      .schedule = schedule_,
                      .network = &network,
                      .queue = &queue,
                      .observers = {&diary}});
    const std::vector<RoutedLayer> layers(model_.moe_layers());
    std::vector<Cost> experts;
    for (uint32_t l = 0; l < model_.moe_layers(); ++l) experts.insert(experts.end(), {Cost{30us}, Cost{7us}});
    pass.Begin(batch_, layers, experts);
    if (meanwhile) meanwhile(queue, network);
    while (!pass.done()) queue.Step();
    end_ = queue.now();
    return diary.lines;
  }

  ModelSpec model_;
  Cluster cluster_;
  ConstantCosts costs_;
  ScheduleConfig schedule_;
  StepBatch batch_;
  SimTime end_;
};

// Attention 10 us a token: ranks have 1 and 2.  Dispatch ends 100 / 104 us after the last release (21), and so on.
TEST_F(ForwardPassTest, StagesFollowEachOtherRankByRank) {
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21", "dispatch/0: 11-121 21-125",
                                 "routed_experts/0: 121-151 125-132", "combine/0: 151-251 132-255",
                                 "lm_head/1: 251-253 255-257"));
  EXPECT_EQ(end_, SimTime(257us));
}

// Shared experts (40 us) run on the compute stream from 11 / 21 while the tokens travel, and do not delay them.
TEST_F(ForwardPassTest, SharedExpertsOverlapDispatch) {
  model_.set_shared_intermediate(1);
  costs_.shared = 40us;
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21", "shared_experts/0: 11-51 21-61",
                                 "dispatch/0: 11-121 21-125", "routed_experts/0: 121-151 125-132",
                                 "combine/0: 151-251 132-255", "lm_head/1: 251-253 255-257"));
}

// Longer than the dispatch, they hold up the routed experts: one compute stream.
TEST_F(ForwardPassTest, RoutedExpertsWaitForTheComputeStream) {
  model_.set_shared_intermediate(1);
  costs_.shared = 200us;
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary[2], "shared_experts/0: 11-211 21-221");
  EXPECT_EQ(diary[4], "routed_experts/0: 211-241 221-228");
}

TEST_F(ForwardPassTest, WithoutOverlapDispatchWaitsForSharedExperts) {
  model_.set_shared_intermediate(1);
  costs_.shared = 40us;
  schedule_.set_overlap_shared_experts(false);
  EXPECT_EQ(Run()[3], "dispatch/0: 51-161 61-165");
}

TEST_F(ForwardPassTest, DenseLayersComeFirst) {
  model_.set_layers(3);
  EXPECT_THAT(Run(), ElementsAre("attention/0: 0-10 0-20", "dense_mlp/0: 10-15 20-25", "attention/1: 15-25 25-45",
                                 "dense_mlp/1: 25-30 45-50", "attention/2: 30-40 50-70", "router/2: 40-41 70-71",
                                 "dispatch/2: 41-171 71-175", "routed_experts/2: 171-201 175-182",
                                 "combine/2: 201-301 182-305", "lm_head/3: 301-303 305-307"));
}

// As many dense layers as MoE layers alternate (Llama 4, interleave_moe_layer_step 2).
TEST_F(ForwardPassTest, EqualNumbersAlternate) {
  model_.set_layers(4);
  model_.set_moe_layers(2);
  EXPECT_FALSE(IsMoeLayer(model_, 0));
  EXPECT_TRUE(IsMoeLayer(model_, 1));
  EXPECT_FALSE(IsMoeLayer(model_, 2));
  EXPECT_TRUE(IsMoeLayer(model_, 3));
  const std::vector<std::string> diary = Run();
  EXPECT_EQ(diary.size(), 2 * 7 + 1u);
  EXPECT_EQ(diary[0].substr(0, 11), "attention/0");
  EXPECT_EQ(diary[1].substr(0, 11), "dense_mlp/0");
}

// Another stream's transfer makes rank 1's dispatch end at 165 instead of 125, known at 123: its experts run 165-172.
// Rank 0's experts (121-151) stay; the combine's last release moves from 151 to 172, its finish to 272 / 276.
TEST_F(ForwardPassTest, ARevisedDispatchMovesWhatFollows) {
  const auto meanwhile = [](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(123us), Phase::kArrive, [&network] { network.Delay(0, 1, 40us); });
  };
  EXPECT_THAT(Run(meanwhile), ElementsAre("attention/0: 0-10 0-20", "router/0: 10-11 20-21",
                                          "dispatch/0: 11-121 21-165", "routed_experts/0: 121-151 165-172",
                                          "combine/0: 151-272 172-276", "lm_head/1: 272-274 276-278"));
  EXPECT_EQ(end_, SimTime(278us));
}

// The last combine may be revised after the LM head has been planned: the step's end moves with it.
TEST_F(ForwardPassTest, ARevisedCombineMovesTheEndOfTheStep) {
  const auto meanwhile = [](EventQueue& queue, FixedNetwork& network) {
    queue.Schedule(SimTime(252us), Phase::kArrive, [&network] { network.Delay(1, 1, 10us); });
  };
  EXPECT_EQ(Run(meanwhile).back(), "lm_head/1: 251-253 265-267");
  EXPECT_EQ(end_, SimTime(267us));
}

}  // namespace
}  // namespace epsim
