#include "models/costs/replay_cost_model.h"

#include <filesystem>
#include <fstream>
#include <vector>

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/costs/step_executor.h"
#include "tests/models/calibration/stated_calibration.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

constexpr int kRanks = 2, kSlots = 4;

// The histograms of the two ranks of a step with one layer.
using Histograms = std::vector<std::vector<int32_t>>;  // [layers][slots of both ranks]

absl::Status Execute(const CostModel& costs, const Histograms& layers, const StopToken& stop = {},
                     std::vector<int64_t> router_tokens = {16, 16}) {
  return costs.executor()->Execute(
      {.layers = static_cast<int>(layers.size()),
       .pieces = 1,
       .ranks = kRanks,
       .tokens_per_slot = [&](int layer, int) -> absl::Span<const int32_t> { return layers[layer]; },
       .router_tokens = router_tokens},
      stop);
}

class Replay : public testing::Test {
 protected:
  std::unique_ptr<CostModel> New(const std::string& config, bool has_gpu = true, bool permutation = true) {
    CostConfig costs;
    EXPECT_TRUE(ParseTextProto("replay { " + config + " }", "test", &costs).ok());
    costs.set_permutation(permutation);
    auto model =
        NewCostModel(costs, *FindModel("deepseek-v3"), H200(),
                     std::make_shared<WorkTimes>([this, has_gpu]() -> absl::StatusOr<std::unique_ptr<KernelClock>> {
                       if (!has_gpu) return absl::UnimplementedError("there is no GPU");
                       auto clock = std::make_unique<StatedClock>(gpu_);
                       clock_ = clock.get();
                       clock_->on_call = on_call_;
                       clock_->fails_at = fails_at_;
                       return clock;
                     }));
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }
  std::string Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "epsim_test_XXXXXX").string();
    EXPECT_NE(mkdtemp(pattern.data()), nullptr);
    return folders_.emplace_back(pattern);
  }
  void TearDown() override {
    for (const std::string& folder : folders_) std::filesystem::remove_all(folder);
  }

  StatedGpu gpu_;
  StatedClock* clock_ = nullptr;
  std::function<void(int)> on_call_;
  int fails_at_ = -1;
  std::vector<std::string> folders_;
};

double ExpertMicroseconds(std::vector<int32_t> tokens) {
  KernelWork work;
  work.mutable_expert_mlp()->set_hidden(7168);
  work.mutable_expert_mlp()->set_inter(2048);
  work.mutable_expert_mlp()->set_weights(BF16);
  work.mutable_expert_mlp()->set_activations(BF16);
  for (int32_t t : tokens) work.mutable_expert_mlp()->add_tokens_per_slot(t);
  return StatedClock().Microseconds(work);
}

TEST_F(Replay, WhatWasExecutedIsThatTime) {
  const auto costs = New("", true, false);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 0, 0, 9, 200}}).ok());
  for (const std::vector<int32_t>& rank : {std::vector<int32_t>{1, 2, 3, 4}, {0, 0, 9, 200}, {0, 0, 0, 0}}) {
    const Cost cost = costs->RoutedExperts(rank);
    EXPECT_NEAR(Microseconds(cost.time), ExpertMicroseconds(rank), 1e-5);
    EXPECT_EQ(cost.source, CostSource::kReplay);
  }
  EXPECT_EQ(costs->Router(16).source, CostSource::kReplay);
}

TEST_F(Replay, AnythingElseIsExtendedFromIt) {
  const auto costs = New("", true, false);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 30, 30, 30, 30}}).ok());
  const Cost cost = costs->RoutedExperts({15, 15, 15, 15});
  EXPECT_EQ(cost.source, CostSource::kExtended);
  EXPECT_NEAR(Microseconds(cost.time) / ExpertMicroseconds({15, 15, 15, 15}), 1, 0.05);
  EXPECT_EQ(costs->Router(17).source, CostSource::kExtended);
  EXPECT_GT(costs->Router(17).time, costs->Router(16).time);
}

TEST_F(Replay, BeforeTheFirstStepTheRestAnswers) {
  const auto costs = New("");
  EXPECT_EQ(costs->RoutedExperts({1, 2, 3, 4}).source, CostSource::kRoofline);
  EXPECT_EQ(costs->Router(16).source, CostSource::kRoofline);
  EXPECT_EQ(clock_, nullptr);
}

TEST_F(Replay, PermutationRunsAsWell) {
  const auto costs = New("");
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 0, 0, 0, 10}}).ok());
  const Cost cost = costs->RoutedExperts({1, 2, 3, 4});
  EXPECT_EQ(cost.source, CostSource::kReplay);
  EXPECT_GT(Microseconds(cost.time), ExpertMicroseconds({1, 2, 3, 4}) + 2 * 2);
}

// Floors: 2.  Router: norm, gate and kernel, once for both ranks.  Experts: 2 distinct of 4.
TEST_F(Replay, EachDistinctWorkRunsOnce) {
  const auto costs = New("", true, false);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8, 1, 2, 3, 4}}).ok());
  EXPECT_EQ(clock_->calls, 2 + 3 + 2);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 5, 6, 7, 8}, {5, 6, 7, 8, 1, 2, 3, 4}}).ok());
  EXPECT_EQ(clock_->calls, 2 + 3 + 2);
}

TEST_F(Replay, ChosenStepsLayersAndRanksRun) {
  const auto costs = New("every_steps: 2 layers: 1 ranks: 0", true, false);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 5, 6, 7, 8}, {9, 10, 11, 12, 13, 14, 15, 16}}).ok());
  EXPECT_EQ(costs->RoutedExperts({9, 10, 11, 12}).source, CostSource::kReplay);
  EXPECT_EQ(costs->RoutedExperts({13, 14, 15, 16}).source, CostSource::kExtended);
  EXPECT_EQ(costs->RoutedExperts({1, 2, 3, 4}).source, CostSource::kExtended);
  ASSERT_TRUE(Execute(*costs, {{1, 1, 1, 1, 1, 1, 1, 1}, {20, 20, 20, 20, 1, 1, 1, 1}}).ok());
  EXPECT_EQ(costs->RoutedExperts({20, 20, 20, 20}).source, CostSource::kExtended);
  ASSERT_TRUE(Execute(*costs, {{1, 1, 1, 1, 1, 1, 1, 1}, {20, 20, 20, 20, 1, 1, 1, 1}}).ok());
  EXPECT_EQ(costs->RoutedExperts({20, 20, 20, 20}).source, CostSource::kReplay);
}

TEST_F(Replay, NoMoreThanTheMostWorksRun) {
  const auto costs = New("most_works: 4", true, false);
  ASSERT_TRUE(Execute(*costs, {{1, 2, 3, 4, 5, 6, 7, 8}, {9, 10, 11, 12, 13, 14, 15, 16}}).ok());
  EXPECT_EQ(costs->RoutedExperts({1, 2, 3, 4}).source, CostSource::kReplay);
  EXPECT_EQ(costs->RoutedExperts({5, 6, 7, 8}).source, CostSource::kExtended);
  EXPECT_THAT(costs->notes(), testing::Contains(HasSubstr("executed: 4 distinct works, the most")));
}

TEST_F(Replay, WrongChoicesAreErrors) {
  CostConfig config;
  config.mutable_replay()->add_layers(58);
  EXPECT_THAT(std::string(NewCostModel(config, *FindModel("deepseek-v3"), H200()).status().message()),
              HasSubstr("costs.replay.layers: 58, but the model has 58"));
  const auto costs = New("ranks: 2");
  EXPECT_THAT(std::string(Execute(*costs, {{1, 2, 3, 4, 5, 6, 7, 8}}).message()),
              HasSubstr("costs.replay.ranks: 2, but there are 2"));
}

TEST_F(Replay, ACompleteCacheNeedsNoGpuAndGivesTheSame) {
  const std::string cache = Folder();
  const Histograms step = {{1, 2, 3, 4, 0, 0, 9, 200}};
  const auto executed = New("cache: \"" + cache + "\"");
  ASSERT_TRUE(Execute(*executed, step).ok());
  const auto cached = New("cache: \"" + cache + "\"", false);
  ASSERT_TRUE(Execute(*cached, step).ok());
  for (const std::vector<int32_t>& rank : {std::vector<int32_t>{1, 2, 3, 4}, {0, 0, 9, 200}, {7, 7, 7, 7}}) {
    EXPECT_EQ(cached->RoutedExperts(rank).time, executed->RoutedExperts(rank).time);
    EXPECT_EQ(cached->RoutedExperts(rank).source, executed->RoutedExperts(rank).source);
  }
  EXPECT_EQ(cached->notes(), executed->notes());
}

TEST_F(Replay, WithoutAGpuWhatIsNotCachedIsAnError) {
  const auto costs = New("", false);
  const absl::Status status = Execute(*costs, {{1, 2, 3, 4, 0, 0, 9, 200}});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("there is no GPU"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("costs.replay: 2 works have to be executed"));
}

TEST_F(Replay, AFailingDeviceEndsTheRunAndKeepsWhatItGave) {
  const std::string cache = Folder();
  fails_at_ = 4;
  const auto costs = New("cache: \"" + cache + "\"");
  const absl::Status status = Execute(*costs, {{1, 2, 3, 4, 0, 0, 9, 200}});
  EXPECT_THAT(std::string(status.message()), HasSubstr("fell off the bus"));
  // Hardware, two floors, the norm.
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache), {}), 4);
}

TEST_F(Replay, StopsAndKeepsWhatWasExecuted) {
  const std::string cache = Folder();
  std::atomic<bool> flag{false};
  on_call_ = [&](int calls) { flag = calls == 4; };
  const auto costs = New("cache: \"" + cache + "\"");
  EXPECT_TRUE(absl::IsCancelled(Execute(*costs, {{1, 2, 3, 4, 0, 0, 9, 200}}, StopToken(&flag))));
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(cache), {}), 5);
}

TEST_F(Replay, ExpertsOfUnequalCost) {
  const auto costs = New("");
  ASSERT_TRUE(Execute(*costs, {{40, 0, 3, 200, 1, 1, 1, 1}}).ok());
  const std::vector<int32_t> tokens = {40, 0, 3, 200};
  const std::vector<double> two(4, 2), first = {2, 1, 1, 1};
  const Duration floor = costs->RoutedExperts(std::vector<int32_t>(4)).time, once = costs->RoutedExperts(tokens).time;
  EXPECT_NEAR(1.0 * (costs->RoutedExperts(tokens, two).time - floor).count(), 2.0 * (once - floor).count(), 3);
  EXPECT_GT(costs->RoutedExperts(tokens, first).time, once);
}

}  // namespace
}  // namespace epsim
