// Laws of every forward pass, whatever its schedule and whatever else is on the links: what is shown in the end follows
// from itself, however often the network changed its mind on the way.
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "tests/models/simulation/forward_pass_fixture.h"

namespace epsim {
namespace {

constexpr StreamId kBatch{0};

// Passes everything on, and keeps what was last said of each phase of the batch.
class WitnessNetwork : public Network {
 public:
  explicit WitnessNetwork(Network* network) : network_(*network) {}

  struct Phase {
    std::vector<SimTime> release, finish;
    int reports = 0;
  };

  PhaseId Start(StreamId stream, const TrafficMatrix& traffic, absl::Span<const SimTime> release,
                Listener listener) override {
    if (stream != kBatch) return network_.Start(stream, traffic, release, std::move(listener));
    const size_t place = phases.size();
    phases.push_back({std::vector<SimTime>(release.begin(), release.end()), {}});
    auto shared = std::make_shared<Listener>(std::move(listener));
    const PhaseId id = network_.Start(stream, traffic, release,
                                      [this, place, shared](PhaseId phase, absl::Span<const SimTime> finish) {
                                        phases[place].finish.assign(finish.begin(), finish.end());
                                        ++phases[place].reports;
                                        (*shared)(phase, finish);
                                      });
    place_of_[id] = place;
    return id;
  }
  void Revise(PhaseId phase, absl::Span<const SimTime> release) override {
    phases[place_of_.at(phase)].release.assign(release.begin(), release.end());
    ++revisions;
    network_.Revise(phase, release);
  }
  absl::Span<const int64_t> bytes_on_link() const override { return network_.bytes_on_link(); }
  LinkClass limiting_class() const override { return network_.limiting_class(); }

  std::vector<Phase> phases;  // Of the batch, in order.
  int revisions = 0;

 private:
  Network& network_;
  std::map<PhaseId, size_t> place_of_;
};

struct SeenStage {
  StageKind kind;
  std::vector<SimTime> start, finish;
};

class Stages : public Observer {
 public:
  void OnStage(const StageRecord& stage) override {
    stages.push_back({stage.kind, std::vector<SimTime>(stage.start.begin(), stage.start.end()),
                      std::vector<SimTime>(stage.finish.begin(), stage.finish.end())});
  }
  void OnHook(const HookRecord& hook) override { hook_times.emplace_back(hook.time.begin(), hook.time.end()); }
  void OnStepEnd(const StepRecord&) override {}
  std::vector<SeenStage> stages;
  std::vector<std::vector<SimTime>> hook_times;
};

struct Setup {
  const char* name;
  const char* schedule;
  CommunicationFootprint communication;
};

const Setup kSetups[] = {
    {"Plain", "", {}},
    {"SharedFirst", "overlap_shared_experts: false", {}},
    {"StatisticsAndMtp", "load_statistics: true mtp_runs: 2", {}},
    {"Chunks", "max_tokens: 12", {}},
    {"OverlappingChunks", "max_tokens: 12 external { chunk_overlap: true }", {}},
    {"QuantisedAfterDispatch", "max_tokens: 12", {.quantised_dispatch = false}},
    {"AllReduce", "max_tokens: 12", {.has_dispatch = false}},
    {"Fused", "max_tokens: 12 fused {}", {}},
    {"PrefillHalves", "external { two_batch_overlap { order: PREFILL } }", {.sms = 24}},
    {"PrefillHalvesWithMtp",
     "mtp_runs: 1 load_statistics: true overlap_shared_experts: false external { two_batch_overlap { order: PREFILL } "
     "}",
     {}},
    {"DecodeHalves", "external { two_batch_overlap { order: DECODE } }", {}},
    {"DecodeHalvesWithMtp", "mtp_runs: 1 external { two_batch_overlap { order: DECODE } }", {.sms = 24}},
};

class ForwardPassLaws : public ForwardPassTest, public testing::WithParamInterface<Setup> {
 protected:
  static constexpr int kRanks = 4;
  static int64_t Draw(RandomStream* random, int64_t below) {
    return static_cast<int64_t>(random->Below(static_cast<uint64_t>(below)));
  }
  static TrafficMatrix Traffic(RandomStream* random) {
    TrafficMatrix traffic{.ranks = kRanks, .bytes = std::vector<int64_t>(kRanks * kRanks)};
    for (int i = 0; i < kRanks * kRanks; ++i) {
      if (i % (kRanks + 1) != 0) traffic.bytes[i] = Draw(random, 2) == 0 ? Draw(random, 20'000) : 0;
    }
    return traffic;
  }
};

// Law: on every rank a stage starts when all that it waits for has finished, a kernel ends when its cost has passed, an
// exchange when network and kernels say so; hooks lie where their stages do; the step ends when the last stage has.
TEST_P(ForwardPassLaws, WhatIsShownFollowsFromItself) {
  SetSchedule(GetParam().schedule);
  const ScheduleConfig schedule = CompleteScheduleConfig(schedule_).value();
  platform_.set_gpus_per_node(2);
  platform_.mutable_gpu()->set_sms(96);
  platform_.mutable_nic()->set_bandwidth("500 MB/s");
  platform_.mutable_nic()->set_latency("3 us");
  const Cluster cluster = Cluster::Create(platform_, kRanks).value();
  model_.set_layers(4);
  model_.set_moe_layers(3);
  model_.set_shared_intermediate(1);
  model_.set_mtp_layers(1);
  costs_.shared = 25us;
  costs_.quantize_row = 1us;
  communication_.made_of = GetParam().communication;
  communication_.busy.assign(kRanks, 0us);
  int revisions = 0, repeated_reports = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    RandomStream random(seed, "passes");
    SetTokens({Draw(&random, 10), Draw(&random, 10), Draw(&random, 10), 2 + Draw(&random, 8)});
    communication_.launch = Duration(1us) * Draw(&random, 5);
    communication_.floor = Duration(1us) * Draw(&random, 60);
    for (Duration& busy : communication_.busy) busy = Duration(1us) * Draw(&random, 80);

    EventQueue queue;
    NetworkConfig config;
    config.mutable_port();
    const std::unique_ptr<Network> port = NewNetwork(config, cluster, &queue).value();
    WitnessNetwork network(port.get());
    Stages seen;
    const ProgramFacts facts = FactsOf(schedule, communication_, true);
    StepWork work;
    PrepareStep(
        batch_, SplitBatch(schedule, batch_).value(),
        {.has_dispatch = facts.has_dispatch, .quantizes_received = facts.quantization == Quantization::kAfterDispatch},
        3, &work);
    for (RoutedLayer& routed : work.routed) {
      for (int i = 0; i < kRanks * kRanks; ++i) {
        routed.tokens_between.push_back(i % (kRanks + 1) == 0 ? 0 : static_cast<int32_t>(Draw(&random, 10'000)));
      }
    }
    for (Cost& cost : work.expert_costs) cost.time = Duration(1us) * Draw(&random, 100);
    for (Cost& cost : work.quantize_costs) cost.time = Duration(1us) * Draw(&random, 10);
    const Program program = MakeProgram(schedule, model_, facts, work.split.shape);
    ForwardPass pass({.model = &model_,
                      .cluster = &cluster,
                      .costs = &costs_,
                      .communication = &communication_,
                      .schedule = schedule,
                      .network = &network,
                      .queue = &queue,
                      .observers = {&seen}});
    std::vector<TrafficMatrix> background(40);
    for (size_t i = 0; i < background.size(); ++i) {
      TrafficMatrix& traffic = background[i];
      traffic = Traffic(&random);
      // Each in a stream of its own, so that it shares links at once.
      const StreamId stream{static_cast<int32_t>(i) + 1};
      queue.Schedule(SimTime(Duration(1us) * Draw(&random, 2000)), Phase::kArrive,
                     [&network, &queue, &traffic, stream] {
                       network.Start(stream, traffic, std::vector<SimTime>(kRanks, queue.now()), [](auto, auto) {});
                     });
    }
    pass.Begin(program, work);
    while (!pass.done()) queue.Step();

    ASSERT_EQ(seen.stages.size(), program.operations.size());
    ASSERT_EQ(network.phases.size(), program.exchanges.size());
    revisions += network.revisions;
    size_t exchange = 0;
    for (size_t i = 0; i < seen.stages.size(); ++i) {
      SCOPED_TRACE("operation " + std::to_string(i));
      const Operation& operation = program.operations[i];
      const SeenStage& stage = seen.stages[i];
      ASSERT_EQ(stage.kind, operation.kind);
      std::vector<SimTime> ready(kRanks);
      for (const int other : operation.after) {
        for (int r = 0; r < kRanks; ++r) ready[r] = std::max(ready[r], seen.stages[other].finish[r]);
      }
      if (operation.lock_step) ready.assign(kRanks, *std::max_element(ready.begin(), ready.end()));
      ASSERT_EQ(stage.start, ready);
      const auto cost = [&](int rank) {
        const int piece = operation.moe_layer * work.pieces() + work.split.shape.piece(operation.part, operation.chunk);
        return work.expert_costs[piece * kRanks + rank].time;
      };
      if (!operation.is_exchange()) {
        for (int r = 0; r < kRanks; ++r) ASSERT_GE(stage.finish[r], stage.start[r]);
        if (operation.kind != StageKind::kRoutedExperts) continue;
        const double left = operation.beside_exchange ? SmsLeft(communication_.made_of, platform_.gpu()) : 1;
        for (int r = 0; r < kRanks; ++r) ASSERT_EQ(stage.finish[r], stage.start[r] + AtSpeed(cost(r), left));
        continue;
      }
      const WitnessNetwork::Phase& phase = network.phases[exchange++];
      repeated_reports += phase.reports > 1;
      const bool fused = operation.kind == StageKind::kFusedExperts;
      for (int r = 0; r < kRanks; ++r) {
        ASSERT_EQ(phase.release[r], stage.start[r] + communication_.launch);
        SimTime finish = std::max(phase.finish[r], stage.start[r] + communication_.floor);
        finish = std::max(finish, phase.release[r] + communication_.busy[r] * (fused ? 2 : 1));
        if (fused) finish = std::max(finish, stage.start[r] + cost(r));
        ASSERT_EQ(stage.finish[r], finish);
      }
    }
    const std::vector<SimTime>& end = seen.stages.back().finish;
    ASSERT_EQ(queue.now(), *std::max_element(end.begin(), end.end()));

    ASSERT_EQ(seen.hook_times.size(), program.hooks.size());
    for (size_t i = 0; i < program.hooks.size(); ++i) {
      const SeenStage& stage = seen.stages[program.hooks[i].operation];
      ASSERT_EQ(seen.hook_times[i], program.hooks[i].at_finish ? stage.finish : stage.start);
    }
  }
  EXPECT_GT(revisions, 0);
  EXPECT_GT(repeated_reports, 0);
}

std::string NameOf(const testing::TestParamInfo<Setup>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Setups, ForwardPassLaws, testing::ValuesIn(kSetups), NameOf);

}  // namespace
}  // namespace epsim
