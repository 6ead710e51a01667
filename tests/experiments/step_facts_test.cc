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

// Two ranks.  Attention ends at 10 / 20, the experts at 50 / 40: the latest finish moves 20 us with attention (rank 1)
// and 30 us with the experts (rank 0).  A stage that ends behind the latest finish is charged nothing.
TEST(StepMeter, ChargesStagesByTheAdvanceOfTheLatestFinish) {
  PlatformSpec platform;
  platform.mutable_gpu()->set_name("gpu");
  platform.mutable_gpu()->set_memory("80 GB");
  platform.mutable_gpu()->set_memory_bandwidth("1 TB/s");
  platform.mutable_gpu()->set_bf16("100 TFLOP/s");
  platform.set_gpus_per_node(2);
  platform.mutable_nvlink()->set_bandwidth("1 GB/s");
  platform.mutable_nvlink()->set_latency("1 us");
  const Cluster cluster = Cluster::Create(platform, 2).value();
  NoNetwork network;
  network.bytes.resize(cluster.links().size());
  std::vector<StepFacts> steps;
  StepMeter meter(cluster, network, 1, [&](const StepFacts& facts) { steps.push_back(facts); });

  const SimTime begin(100us);
  const auto stage = [&](StageKind kind, int layer, Duration s0, Duration s1, Duration f0, Duration f1) {
    const SimTime start[] = {begin + s0, begin + s1}, finish[] = {begin + f0, begin + f1};
    meter.OnStage({.kind = kind,
                   .layer = layer,
                   .source = CostSource::kRoofline,
                   .link_class = LinkClass::kNvlink,
                   .start = start,
                   .finish = finish});
  };
  stage(StageKind::kAttention, 0, 0us, 0us, 10us, 20us);
  stage(StageKind::kRouter, 0, 10us, 10us, 15us, 15us);
  stage(StageKind::kRoutedExperts, 0, 20us, 20us, 50us, 40us);
  for (size_t link = 0; link < network.bytes.size(); ++link) network.bytes[link] = 7;
  RoutedLayer layer;
  layer.tokens_per_slot = {3, 0, 1, 0};  // Rank 0: 3, rank 1: 1.  Mean 2 / max 3.
  const std::vector<Duration> expert_time = {30us, 20us};
  StepBatch batch;
  batch.index = 4;
  batch.tokens = 4;
  meter.OnStepEnd({.start = begin,
                   .finish = begin + Duration(50us),
                   .batch = &batch,
                   .layers = absl::MakeConstSpan(&layer, 1),
                   .expert_time = expert_time});

  ASSERT_EQ(steps.size(), 1u);
  const StepFacts& facts = steps[0];
  EXPECT_EQ(facts.step, 4);
  EXPECT_EQ(facts.by_stage[static_cast<size_t>(StageKind::kAttention)], Duration(20us));
  EXPECT_EQ(facts.by_stage[static_cast<size_t>(StageKind::kRouter)], Duration(0));
  EXPECT_EQ(facts.by_stage[static_cast<size_t>(StageKind::kRoutedExperts)], Duration(30us));
  EXPECT_EQ(facts.by_rank[0], Duration(30us));
  EXPECT_EQ(facts.by_rank[1], Duration(20us));
  EXPECT_EQ(facts.by_layer[0], Duration(50us));
  EXPECT_DOUBLE_EQ(facts.tokens_balancedness, 2.0 / 3);
  EXPECT_DOUBLE_EQ(facts.expert_time_balancedness, 25.0 / 30);
  // Busy: 10 + 5 + 30 = 45 and 20 + 5 + 20 = 45 of 50.
  EXPECT_DOUBLE_EQ(facts.busy, 0.9);
  EXPECT_DOUBLE_EQ(facts.min_over_max, 1);
  // Two outgoing NVLink ports carried 7 bytes each; incoming ports carry the same bytes and are not counted again.
  EXPECT_EQ(facts.bytes[static_cast<size_t>(LinkClass::kNvlink)], 14);
}

}  // namespace
}  // namespace epsim
