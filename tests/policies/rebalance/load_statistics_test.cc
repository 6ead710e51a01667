#include "policies/rebalance/load_statistics.h"

#include <algorithm>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/rebalance/rebalance_config.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

const Layer kFirst{0}, kSecond{1};

LoadStatisticsConfig Config(const std::string& statistics) {
  RebalanceConfig config;
  EXPECT_TRUE(ParseTextProto(absl::StrCat("statistics {", statistics, "}"), "a test", &config).ok());
  return CompleteRebalanceConfig(config).value().statistics();
}

// The same experts in every layer.
Placement Held(const PlacementShape& shape, const std::vector<int>& experts_of_slots) {
  std::vector<LogicalExpert> experts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int expert : experts_of_slots) experts.push_back(LogicalExpert(expert));
  }
  return Placement(shape, std::move(experts));
}

const PlacementShape kOneExpert{.layers = 1, .experts = 1, .slots = 1, .ranks = 1};

// The rows after `steps` steps, of which step i (from 0) has 2^i tokens: the sum of a row says which steps it counts.
std::vector<double> RowsAfter(int steps, const std::string& config) {
  LoadStatistics statistics(Config(config), kOneExpert);
  const Placement placement = Held(kOneExpert, {0});
  for (int step = 0; step < steps; ++step) statistics.Add(kFirst, {1 << step}, placement);
  const LoadWindow window = statistics.Window({kFirst}, placement);
  return {window.tokens.begin(), window.tokens.end()};
}

TEST(LoadStatistics, ARowIsAStepWhereTheRowsSuffice) {
  EXPECT_THAT(RowsAfter(0, "window { steps: 3 }"), IsEmpty());
  EXPECT_THAT(RowsAfter(2, "window { steps: 3 }"), ElementsAre(1, 2));
  EXPECT_THAT(RowsAfter(3, "window { steps: 3 }"), ElementsAre(1, 2, 4));
  EXPECT_THAT(RowsAfter(5, "window { steps: 3 }"), ElementsAre(4, 8, 16));
}

// 4 steps in 2 rows: 2 steps a row.  When a row is full the oldest one goes, and the newest begins from nothing.
TEST(LoadStatistics, ARowSumsStepsWhereThereWouldBeTooManyRows) {
  const std::string config = "window { steps: 4 } max_rows: 2";
  EXPECT_THAT(RowsAfter(1, config), ElementsAre(1));
  EXPECT_THAT(RowsAfter(2, config), ElementsAre(1 + 2));
  EXPECT_THAT(RowsAfter(3, config), ElementsAre(1 + 2, 4));
  EXPECT_THAT(RowsAfter(4, config), ElementsAre(1 + 2, 4 + 8));
  EXPECT_THAT(RowsAfter(5, config), ElementsAre(4 + 8, 16));
  EXPECT_THAT(RowsAfter(6, config), ElementsAre(4 + 8, 16 + 32));
  EXPECT_THAT(RowsAfter(7, config), ElementsAre(16 + 32, 64));
}

// 5 steps in 2 rows: ceil(5 / 2) = 3 a row, and 2 rows of them.  9 steps in 4: 3 a row, of which 3 rows make 9.
TEST(LoadStatistics, RowsAreWholeWhereTheWindowIsNoMultiple) {
  EXPECT_THAT(RowsAfter(6, "window { steps: 5 } max_rows: 2"), ElementsAre(1 + 2 + 4, 8 + 16 + 32));
  EXPECT_THAT(RowsAfter(7, "window { steps: 5 } max_rows: 2"), ElementsAre(8 + 16 + 32, 64));
  EXPECT_THAT(RowsAfter(10, "window { steps: 9 } max_rows: 4"), ElementsAre(8 + 16 + 32, 64 + 128 + 256, 512));
  EXPECT_THAT(RowsAfter(3, "window { steps: 3 } max_rows: 1"), ElementsAre(1 + 2 + 4));
  EXPECT_THAT(RowsAfter(4, "window { steps: 3 } max_rows: 1"), ElementsAre(8));
}

// 1000 steps in 32 rows: 32 steps a row, 1,024 steps in all rows, 31 * 32 + 1 when a row has just begun.
TEST(LoadStatistics, CountsAboutAThousandStepsByDefault) {
  LoadStatistics statistics(Config(""), kOneExpert);
  const Placement placement = Held(kOneExpert, {0});
  const auto add = [&](int steps) {
    for (int step = 0; step < steps; ++step) statistics.Add(kFirst, {1}, placement);
    return statistics.Window({kFirst}, placement);
  };
  LoadWindow window = add(1000);
  EXPECT_EQ(window.steps_per_row, 32);
  EXPECT_EQ(window.rows, 32);
  EXPECT_THAT(window.Total(), ElementsAre(1000));
  EXPECT_THAT(add(24).Total(), ElementsAre(1024));
  window = add(1);
  EXPECT_EQ(window.rows, 32);
  EXPECT_THAT(window.Total(), ElementsAre(993));
  EXPECT_EQ(window.of(31, kFirst)[0], 1);
}

// Against the definition: steps in groups of s from the first on, the newest ceil(W / s) groups.
TEST(LoadStatistics, RowsAreTheNewestGroupsOfStepsWhateverTheSizes) {
  RandomStream random(1, "load_statistics_test");
  for (int trial = 0; trial < 200; ++trial) {
    const int steps = 1 + static_cast<int>(random.Below(40)), most = 1 + static_cast<int>(random.Below(12));
    const int added = static_cast<int>(random.Below(120));
    LoadStatistics statistics(Config(absl::StrCat("window { steps: ", steps, " } max_rows: ", most)), kOneExpert);
    const Placement placement = Held(kOneExpert, {0});
    const int size = (steps + most - 1) / most, rows = (steps + size - 1) / size;
    std::vector<double> groups;
    for (int step = 0; step < added; ++step) {
      const auto tokens = static_cast<int32_t>(random.Below(1000));
      statistics.Add(kFirst, {tokens}, placement);
      if (step % size == 0) groups.push_back(0);
      groups.back() += tokens;
    }
    if (groups.size() > static_cast<size_t>(rows)) groups.erase(groups.begin(), groups.end() - rows);
    const LoadWindow window = statistics.Window({kFirst}, placement);
    ASSERT_LE(rows, most);
    ASSERT_EQ(window.steps_per_row, size);
    ASSERT_EQ(window.rows, static_cast<int>(groups.size()));
    ASSERT_THAT(window.tokens, testing::ElementsAreArray(groups)) << steps << " steps, " << most << " rows";
  }
}

const PlacementShape kTwoLayers{.layers = 2, .experts = 2, .slots = 3, .ranks = 3};

// Slots 0 and 2 hold expert 1.
TEST(LoadStatistics, ReplicasOfAnExpertAddUp) {
  for (const char* const attribution : {"AT_STEP", "AT_PLANNING"}) {
    LoadStatistics statistics(Config(absl::StrCat("attribution: ", attribution)), kTwoLayers);
    const Placement placement = Held(kTwoLayers, {1, 0, 1});
    statistics.Add(kFirst, {5, 7, 20}, placement);
    statistics.Add(kSecond, {1, 0, 2}, placement);
    EXPECT_THAT(statistics.Window({kFirst, kSecond}, placement).tokens, ElementsAre(7, 25, 0, 3)) << attribution;
  }
}

// Layer 0 has seen three steps, layer 1 only the last of them since it was planned: what it lacks are the old rows.
TEST(LoadStatistics, TheNewestRowsOfLayersStandTogether) {
  LoadStatistics statistics(Config("window { steps: 4 } cleared_by_planning: true"), kTwoLayers);
  const Placement placement = Held(kTwoLayers, {0, 1, 1});
  for (int32_t step : {1, 2, 3}) {
    if (step == 3) statistics.Planned(kSecond);
    statistics.Add(kFirst, {step, 10 * step, 0}, placement);
    statistics.Add(kSecond, {100 * step, 0, 1000 * step}, placement);
  }
  const LoadWindow both = statistics.Window({kFirst, kSecond}, placement);
  EXPECT_EQ(both.rows, 3);
  EXPECT_EQ(both.layers, 2);
  EXPECT_EQ(both.experts, 2);
  EXPECT_THAT(both.tokens, ElementsAre(1, 10, 0, 0, /**/ 2, 20, 0, 0, /**/ 3, 30, 300, 3000));
  // As many rows as the layers asked for have; others are zero.
  EXPECT_THAT(statistics.Window({kSecond}, placement).tokens, ElementsAre(0, 0, 300, 3000));
  EXPECT_THAT(statistics.Window({kFirst}, placement).tokens, ElementsAre(1, 10, 0, 0, 2, 20, 0, 0, 3, 30, 0, 0));
}

// f = f / 2 + tokens: expert 0 has 8, 4 + 4, 4 + 1; expert 1 0, 6, 3.
TEST(LoadStatistics, ADecayingFactorHalvesWhatWasThere) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  LoadStatistics statistics(Config("decay { decay: 0.5 }"), shape);
  const Placement placement = Held(shape, {0, 1});
  statistics.Add(kFirst, {8, 0}, placement);
  EXPECT_THAT(statistics.Window({kFirst}, placement).tokens, ElementsAre(8, 0));
  statistics.Add(kFirst, {4, 6}, placement);
  EXPECT_THAT(statistics.Window({kFirst}, placement).tokens, ElementsAre(8, 6));
  statistics.Add(kFirst, {1, 0}, placement);
  const LoadWindow window = statistics.Window({kFirst}, placement);
  EXPECT_THAT(window.tokens, ElementsAre(5, 3));
  EXPECT_EQ(window.rows, 1);
  EXPECT_EQ(window.steps_per_row, 1);
}

// TensorRT-LLM: f is 0 again when the layer has been planned.
TEST(LoadStatistics, PlanningClearsTheFactorOfItsLayerOnly) {
  LoadStatistics statistics(Config("decay { decay: 0.25 } cleared_by_planning: true"), kTwoLayers);
  const Placement placement = Held(kTwoLayers, {0, 1, 1});
  statistics.Add(kFirst, {16, 0, 0}, placement);
  statistics.Add(kSecond, {16, 0, 0}, placement);
  statistics.Planned(kFirst);
  statistics.Add(kFirst, {1, 2, 0}, placement);
  statistics.Add(kSecond, {1, 2, 0}, placement);
  EXPECT_THAT(statistics.Window({kFirst, kSecond}, placement).tokens, ElementsAre(1, 2, 4 + 1, 2));
}

// Each slot's count of a step is rounded up to whole tiles: 1 and 129 of expert 0 to 128 and 256, 128 and nothing stay.
TEST(LoadStatistics, AlignedCountsAreWholeTilesOfEachSlotAndStep) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};
  const Placement placement = Held(shape, {0, 0, 1, 2});
  const auto counted = [&](const std::string& config) {
    LoadStatistics statistics(Config(config), shape);
    statistics.Add(kFirst, {1, 129, 128, 0}, placement);
    statistics.Add(kFirst, {1, 0, 0, 0}, placement);
    return statistics.Window({kFirst}, placement).Total();
  };
  EXPECT_THAT(counted("counts: ALIGNED"), ElementsAre(128 + 256 + 128, 128, 0));
  EXPECT_THAT(counted("counts: ALIGNED alignment: 16"), ElementsAre(16 + 144 + 16, 128, 0));
  EXPECT_THAT(counted("counts: EXACT alignment: 16"), ElementsAre(131, 128, 0));
  EXPECT_THAT(counted("counts: ALIGNED attribution: AT_PLANNING"), ElementsAre(128 + 256 + 128, 128, 0));
}

// One step before and one after the two experts have changed places: expert 0 got 10 and 9 tokens, expert 1 got 3 and
// 4.  Slots had 10 + 4 and 3 + 9: put down to who holds them now, expert 1 is the hotter one.
TEST(LoadStatistics, CountsOfSlotsMistakeWhoHeldThem) {
  const PlacementShape shape{.layers = 2, .experts = 2, .slots = 2, .ranks = 2};
  const Placement before = Held(shape, {0, 1});
  Placement after = before;
  after.TakeLayer(kFirst, Held(shape, {1, 0}));  // Layer 1 stays.
  const auto window = [&](const char* attribution, const Placement& in_force) {
    LoadStatistics statistics(Config(absl::StrCat("window { steps: 2 } attribution: ", attribution)), shape);
    for (Layer layer : {kFirst, kSecond}) statistics.Add(layer, {10, 3}, before);
    statistics.Add(kFirst, {4, 9}, after);
    statistics.Add(kSecond, {9, 4}, after);
    const LoadWindow window = statistics.Window({kFirst, kSecond}, in_force);
    return std::vector<double>(window.tokens.begin(), window.tokens.end());
  };
  EXPECT_THAT(window("AT_STEP", after), ElementsAre(10, 3, 10, 3, /**/ 9, 4, 9, 4));
  EXPECT_THAT(window("AT_STEP", before), ElementsAre(10, 3, 10, 3, /**/ 9, 4, 9, 4));
  EXPECT_THAT(window("AT_PLANNING", after), ElementsAre(3, 10, 10, 3, /**/ 9, 4, 9, 4));
  EXPECT_THAT(window("AT_PLANNING", before), ElementsAre(10, 3, 10, 3, /**/ 4, 9, 9, 4));
}

// Slot 2 is of a rank that has failed since: at planning nobody knows whose its 20 tokens were.
TEST(LoadStatistics, WhatAnEmptySlotCountedIsLostAtPlanning) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 3, .ranks = 3};
  const Placement before = Held(shape, {0, 1, 1}), after = Held(shape, {0, 1, -1});
  const auto total = [&](const char* attribution) {
    LoadStatistics statistics(Config(absl::StrCat("attribution: ", attribution)), shape);
    statistics.Add(kFirst, {1, 2, 20}, before);
    statistics.Add(kFirst, {4, 30, 0}, after);
    return statistics.Window({kFirst}, after).Total();
  };
  EXPECT_THAT(total("AT_STEP"), ElementsAre(1 + 4, 22 + 30));
  EXPECT_THAT(total("AT_PLANNING"), ElementsAre(1 + 4, 2 + 30));
}

TEST(LoadStatistics, PlanningClearsOnlyWhereConfigured) {
  const Placement placement = Held(kOneExpert, {0});
  const auto rows_after_planning = [&](const std::string& config) {
    LoadStatistics statistics(Config(config), kOneExpert);
    for (int32_t tokens : {1, 2, 4}) statistics.Add(kFirst, {tokens}, placement);
    statistics.Planned(kFirst);
    const LoadWindow window = statistics.Window({kFirst}, placement);
    return std::vector<double>(window.tokens.begin(), window.tokens.end());
  };
  EXPECT_THAT(rows_after_planning(""), ElementsAre(1 + 2 + 4));
  EXPECT_THAT(rows_after_planning("cleared_by_planning: true"), IsEmpty());
}

// Steps are grouped in rows from the clearing on: the row that was filling is forgotten, too.
TEST(LoadStatistics, ClearForgetsEverything) {
  for (const char* const config : {"window { steps: 4 } max_rows: 2", "decay { decay: 0.5 }"}) {
    LoadStatistics statistics(Config(config), kTwoLayers);
    const Placement placement = Held(kTwoLayers, {0, 1, 1});
    statistics.Add(kFirst, {5, 6, 7}, placement);
    statistics.Add(kSecond, {5, 6, 7}, placement);
    statistics.Clear();
    EXPECT_EQ(statistics.Window({kFirst, kSecond}, placement).rows, 0) << config;
    statistics.Add(kFirst, {1, 0, 0}, placement);
    EXPECT_THAT(statistics.Window({kFirst, kSecond}, placement).tokens, ElementsAre(1, 0, 0, 0)) << config;
  }
  LoadStatistics statistics(Config("window { steps: 4 } max_rows: 2"), kOneExpert);
  const Placement placement = Held(kOneExpert, {0});
  for (int32_t tokens : {1, 2, 4}) statistics.Add(kFirst, {tokens}, placement);
  statistics.Clear();
  for (int32_t tokens : {8, 16, 32}) statistics.Add(kFirst, {tokens}, placement);
  EXPECT_THAT(statistics.Window({kFirst}, placement).tokens, ElementsAre(8 + 16, 32));
}

TEST(LoadStatisticsDeathTest, NeedsACountOfEverySlotAndACompleteConfig) {
  LoadStatistics statistics(Config(""), kTwoLayers);
  EXPECT_DEATH(statistics.Add(kFirst, {1, 2}, Held(kTwoLayers, {0, 1, 1})), "tokens_per_slot.size");
  EXPECT_DEATH(LoadStatistics(LoadStatisticsConfig(), kTwoLayers), "MEMORY_NOT_SET");
}

}  // namespace
}  // namespace epsim
