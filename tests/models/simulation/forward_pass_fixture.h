// A world in which forward passes can be worked by hand: constant costs, a network whose exchanges take a fixed time
// after the last release, a diary of what happened.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/schedule/schedule_config.h"
#include "models/simulation/forward_pass.h"

namespace epsim {

using namespace std::chrono_literals;

class ConstantCosts : public CostModel {
 public:
  Cost Attention(const AttentionLoad& load) const override {
    return {Duration(10us) * load.tokens, load.tokens == executed_tokens ? CostSource::kReplay : CostSource::kRoofline};
  }
  Cost DenseMlp(int64_t) const override { return {5us}; }
  Cost Router(int64_t tokens) const override { return {1us + router_row * tokens}; }
  Cost Quantize(int64_t tokens) const override { return {quantize_row * tokens}; }
  Cost SharedExperts(int64_t) const override { return {shared}; }
  Cost RoutedExperts(absl::Span<const int32_t>, absl::Span<const double>) const override { return {}; }
  Cost LmHead(int64_t) const override { return {2us}; }

  Duration shared{0}, router_row{0}, quantize_row{0};
  int64_t executed_tokens = -1;  // Attention of so many has another source.
};

// Rank r finishes `delay[r]` after the last release; a test may move a finish that is still to come.
class FixedNetwork : public Network {
 public:
  FixedNetwork(EventQueue* queue, std::vector<Duration> delay) : queue_(queue), delay_(std::move(delay)) {}

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override {
    phases_.push_back({std::move(listener), {}, 0, false, stream == StreamId{0} ? Duration{} : weights});
    bytes.push_back(traffic.bytes);
    const PhaseId id{static_cast<int64_t>(phases_.size()) - 1};
    Revise(id, release);
    return id;
  }
  void Revise(PhaseId id, absl::Span<const SimTime> release) override {
    PhaseState& phase = phases_[static_cast<size_t>(id)];
    EXPECT_FALSE(phase.reported) << "phase " << static_cast<int64_t>(id);
    const SimTime last = *std::max_element(release.begin(), release.end());
    phase.finish.clear();
    for (Duration delay : delay_) phase.finish.push_back(last + delay + phase.more);
    const int version = ++phase.version;
    queue_->Schedule(*std::min_element(phase.finish.begin(), phase.finish.end()), Phase::kComplete,
                     [this, id, version] {
                       if (phases_[static_cast<size_t>(id)].version == version) Report(id);
                     });
  }
  void Report(PhaseId id) {
    phases_[static_cast<size_t>(id)].reported = true;
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

  std::vector<std::vector<int64_t>> bytes;  // Of the phases so far.
  Duration weights{};                       // Phases of other streams than the batch's take this much longer.

 private:
  struct PhaseState {
    Listener listener;
    std::vector<SimTime> finish;
    int version;
    bool reported = false;
    Duration more{};
  };
  EventQueue* queue_;
  std::vector<Duration> delay_;
  std::deque<PhaseState> phases_;
};

// Dispatch carries one byte a token between ranks, combine ten bytes back.
class ByteATokenCommunication : public Communication {
 public:
  std::string name() const override { return "all_to_all"; }
  RoutingDetail detail() const override { return {}; }
  CommunicationFootprint footprint() const override { return made_of; }
  absl::Status Admit(const ForwardShape&) override { return absl::OkStatus(); }
  void Dispatch(const RoutedLayer& routed, Exchange* exchange) const override { Make(routed, 1, exchange); }
  void Combine(const RoutedLayer& routed, Exchange* exchange) const override { Make(routed, 10, exchange); }
  void Statistics(int, Exchange* exchange) const override { Make({}, 0, exchange); }
  std::vector<std::string> notes() const override { return {}; }

  CommunicationFootprint made_of{.statistics_ride_along = true};
  Duration launch{0}, floor{0};
  std::vector<Duration> busy = {Duration(0), Duration(0)};  // [ranks]

 private:
  void Make(const RoutedLayer& routed, int64_t bytes, Exchange* exchange) const {
    exchange->launch = launch;
    exchange->floor = floor;
    exchange->busy = busy;
    exchange->traffic.ranks = static_cast<int>(busy.size());
    exchange->traffic.bytes.assign(busy.size() * busy.size(), 0);
    for (size_t i = 0; i < routed.tokens_between.size(); ++i) {
      exchange->traffic.bytes[i] = bytes * routed.tokens_between[i];
    }
  }
};

// Writes "kind/layer: start-finish start-finish" in microseconds, one entry a stage, with the half (A, B), the chunk
// and the repeat where there are several; and, if asked to, "hook: time time".
class Diary : public Observer {
 public:
  void OnStage(const StageRecord& stage) override {
    std::string line = std::string(Name(stage.kind)) + "/" + std::to_string(stage.layer);
    if (stage.part > 0) line += stage.part == 1 ? " A" : " B";
    if (stage.chunk > 0) line += " chunk " + std::to_string(stage.chunk);
    if (stage.repeat > 0) line += " repeat " + std::to_string(stage.repeat);
    line += ":";
    for (size_t r = 0; r < stage.start.size(); ++r) {
      line += " " + Microseconds(stage.start[r]) + "-" + Microseconds(stage.finish[r]);
    }
    lines.push_back(line);
    sources.push_back(stage.source);
  }
  void OnHook(const HookRecord& hook) override {
    if (!with_hooks) return;
    std::string line = std::string(Name(hook.hook)) + ":";
    for (const SimTime time : hook.time) line += " " + Microseconds(time);
    lines.push_back(line);
  }
  void OnStepEnd(const StepRecord&) override {}

  bool with_hooks = false;
  std::vector<std::string> lines;
  std::vector<CostSource> sources;  // [stages]

 private:
  static std::string Microseconds(SimTime time) { return std::to_string(time.time_since_epoch() / Duration(1us)); }
};

class ForwardPassTest : public testing::Test {
 protected:
  ForwardPassTest() {
    model_.set_layers(1);
    model_.set_moe_layers(1);
    platform_.mutable_gpu()->set_name("gpu");
    platform_.mutable_gpu()->set_memory("80 GB");
    platform_.mutable_gpu()->set_memory_bandwidth("1 TB/s");
    platform_.mutable_gpu()->set_bf16("100 TFLOP/s");
    platform_.set_gpus_per_node(2);
    platform_.mutable_nvlink()->set_bandwidth("1 GB/s");
    platform_.mutable_nvlink()->set_latency("1 us");
    SetTokens({1, 2});
  }

  // Decode tokens of each rank.
  void SetTokens(const std::vector<int64_t>& tokens) {
    batch_ = {};
    batch_.rank_begin = {0};
    for (const int64_t count : tokens) {
      batch_.tokens += static_cast<int>(count);
      batch_.rank_begin.push_back(batch_.tokens);
      batch_.attention.push_back({.tokens = count, .sequences = count, .decode_tokens = count});
    }
  }
  void SetSchedule(const std::string& text) {
    schedule_ = {};
    ASSERT_TRUE(ParseTextProto(text, "a test", &schedule_).ok());
  }

  // Runs one step on two ranks and returns the diary.  Every piece of every layer has experts_ [ranks].
  std::vector<std::string> Run(const std::function<void(EventQueue&, FixedNetwork&)>& meanwhile = {}) {
    const Cluster cluster = Cluster::Create(platform_, 2, overrides_).value();
    const ScheduleConfig schedule = CompleteScheduleConfig(schedule_).value();
    EventQueue queue;
    FixedNetwork network(&queue, delay_);
    diary_.lines.clear();
    diary_.sources.clear();
    const bool quantizes = costs_.quantize_row > Duration{};
    const ProgramFacts facts = FactsOf(schedule, communication_, quantizes);
    StepWork work;
    PrepareStep(batch_, SplitBatch(schedule, batch_).value(),
                {.padding = schedule.external().padding(),
                 .gathers_rows = false,
                 .has_dispatch = facts.has_dispatch,
                 .quantizes_received = false},
                static_cast<int>(model_.moe_layers()), &work);
    for (size_t i = 0; i < work.routed.size(); ++i) {
      // Every token of a rank visits both ranks.
      const TokenRange& range = work.split.pieces[i % work.split.pieces.size()];
      for (int source = 0; source < 2; ++source) {
        for (int owner = 0; owner < 2; ++owner) {
          work.routed[i].tokens_between.push_back(range.end[source] - range.begin[source]);
        }
        work.expert_costs[2 * i + source].time = experts_[source];
      }
    }
    const Program program = MakeProgram(schedule, model_, facts, work.split.shape);
    ForwardPass pass({.model = &model_,
                      .cluster = &cluster,
                      .costs = &costs_,
                      .communication = &communication_,
                      .schedule = schedule,
                      .network = &network,
                      .queue = &queue,
                      .observers = {&diary_}});
    pass_ = &pass;
    for (const int layer : closed_) pass.Close(Layer(layer));
    pass.Begin(program, work);
    if (meanwhile) meanwhile(queue, network);
    while (!pass.done()) queue.Step();
    waits_.clear();
    for (int layer = 0; layer < static_cast<int>(model_.moe_layers()); ++layer) {
      waits_.push_back(pass.wait_for_weights(Layer(layer)));
    }
    pass_ = nullptr;
    end_ = queue.now();
    bytes_ = network.bytes;
    return diary_.lines;
  }

  ModelSpec model_;
  PlatformSpec platform_;
  ClusterOverrides overrides_;
  ConstantCosts costs_;
  ByteATokenCommunication communication_;
  ScheduleConfig schedule_;
  StepBatch batch_;
  std::vector<Duration> experts_ = {30us, 7us};
  std::vector<Duration> delay_ = {100us, 104us};
  std::vector<int> closed_;      // MoE layers whose gate is closed before the step.
  ForwardPass* pass_ = nullptr;  // In Run().
  std::vector<Duration> waits_;  // For weights.  [MoE layers]
  Diary diary_;
  SimTime end_;
  std::vector<std::vector<int64_t>> bytes_;  // Of the exchanges, in order.
};

}  // namespace epsim
