#include "policies/rebalance/rebalance_schedule.h"

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "policies/rebalance/rebalance_config.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

RebalanceSchedule Schedule(const std::string& text, int layers = 1) {
  RebalanceConfig config;
  EXPECT_TRUE(ParseTextProto(text, "a test", &config).ok());
  return RebalanceSchedule(CompleteRebalanceConfig(config).value(), layers);
}

void End(RebalanceSchedule* schedule, int steps, double utilization = 0.5) {
  for (int step = 0; step < steps; ++step) schedule->StepEnded(utilization);
}

// Before which of the first `steps` steps all layers are planned, each plan in force at once.
std::vector<int> PlannedBefore(RebalanceSchedule schedule, int steps) {
  std::vector<int> planned;
  for (int step = 0; step < steps; ++step) {
    if (schedule.due()) {
      planned.push_back(step);
      schedule.Planned();
      schedule.Settled();
    }
    End(&schedule, 1);
  }
  return planned;
}

TEST(RebalanceSchedule, PlansEveryInterval) {
  for (const char* const mode : {"blocking {}", "chunked {}", "async_layer {}"}) {
    EXPECT_THAT(PlannedBefore(Schedule(absl::StrCat(mode, " interval_steps: 3")), 11), ElementsAre(3, 6, 9)) << mode;
    EXPECT_THAT(PlannedBefore(Schedule(absl::StrCat(mode, " interval_steps: 1")), 4), ElementsAre(1, 2, 3)) << mode;
  }
  EXPECT_THAT(PlannedBefore(Schedule("blocking {}"), 2002), ElementsAre(1000, 2000));
}

// vLLM starts after a quarter of an interval.  Without a single step there is nothing to plan on.
TEST(RebalanceSchedule, TheFirstPlanHasATimeOfItsOwn) {
  EXPECT_THAT(PlannedBefore(Schedule("async_layer {} interval_steps: 4 first_after_steps: 1"), 11),
              ElementsAre(1, 5, 9));
  EXPECT_THAT(PlannedBefore(Schedule("blocking {} interval_steps: 2 first_after_steps: 5"), 10), ElementsAre(5, 7, 9));
  EXPECT_THAT(PlannedBefore(Schedule("blocking {} interval_steps: 4 first_after_steps: 0"), 10), ElementsAre(1, 5, 9));
}

TEST(RebalanceSchedule, NothingIsDueWhereAllLayersAreNeverPlanned) {
  EXPECT_THAT(PlannedBefore(Schedule("none {} interval_steps: 1"), 5), IsEmpty());
  EXPECT_THAT(PlannedBefore(Schedule("online {}"), 5), IsEmpty());
}

// When ranks fail all layers are planned whatever the mode; that does not start a rhythm that the mode has not.
TEST(RebalanceSchedule, APlanForOtherReasonsStartsNoInterval) {
  for (const char* const text : {"none {} interval_steps: 1", "online {}"}) {
    RebalanceSchedule schedule = Schedule(text);
    End(&schedule, 2);
    schedule.Planned();
    End(&schedule, 3);
    EXPECT_FALSE(schedule.due()) << text;
  }
  // But begins the next one where there are intervals.
  RebalanceSchedule schedule = Schedule("blocking {} interval_steps: 3");
  End(&schedule, 2);
  schedule.Planned();
  End(&schedule, 2);
  EXPECT_FALSE(schedule.due());
  EXPECT_EQ(schedule.steps(), 2);
  End(&schedule, 1);
  EXPECT_TRUE(schedule.due());
}

// A plan that is put off stays due.
TEST(RebalanceSchedule, StaysDueUntilPlanned) {
  RebalanceSchedule schedule = Schedule("async_layer {} interval_steps: 2");
  End(&schedule, 1);
  EXPECT_FALSE(schedule.due());
  End(&schedule, 4);
  EXPECT_TRUE(schedule.due());
  EXPECT_EQ(schedule.steps(), 5);
  schedule.Planned();
  EXPECT_FALSE(schedule.due());
  EXPECT_EQ(schedule.steps(), 0);
}

// Two steps pass until all chunks are in force.  An interval of 3 then ends 3 steps after the plan, or under `chunked`
// 3 steps after the last chunk.
TEST(RebalanceSchedule, ChunksPutOffTheInterval) {
  const auto steps_to_next = [](const std::string& mode) {
    RebalanceSchedule schedule = Schedule(mode + " interval_steps: 3");
    End(&schedule, 3);
    EXPECT_TRUE(schedule.due());
    schedule.Planned();
    int steps = 0;
    for (; !schedule.due(); ++steps) {
      if (steps == 2) schedule.Settled();
      End(&schedule, 1);
    }
    return steps;
  };
  EXPECT_EQ(steps_to_next("blocking {}"), 3);
  EXPECT_EQ(steps_to_next("async_layer {}"), 3);
  EXPECT_EQ(steps_to_next("chunked {}"), 5);
}

// (0.5 + 1) / 2 is not above 0.75; (0.5 + 1 + 1) / 3 is.
TEST(RebalanceSchedule, SkipsAboveTheThresholdOnly) {
  RebalanceSchedule schedule = Schedule("blocking {} min_utilization_threshold: 0.75");
  EXPECT_EQ(schedule.TooWellBalanced(), std::nullopt);
  schedule.StepEnded(0.5);
  schedule.StepEnded(1);
  EXPECT_EQ(schedule.TooWellBalanced(), std::nullopt);
  schedule.StepEnded(1);
  EXPECT_EQ(schedule.TooWellBalanced(), 2.5 / 3);
  schedule.Planned();  // The utilisation goes on across plans.
  EXPECT_EQ(schedule.TooWellBalanced(), 2.5 / 3);
}

TEST(RebalanceSchedule, AThresholdOfOneIsNone) {
  RebalanceSchedule schedule = Schedule("blocking {}");
  schedule.StepEnded(1);
  EXPECT_EQ(schedule.TooWellBalanced(), std::nullopt);
}

// After 1000 steps of 1/2 come n of 1: the mean of the last 1000 is (1000 + n) / 2000, above 3/4 from n = 501 on.
TEST(RebalanceSchedule, LooksAtTheLastThousandSteps) {
  RebalanceSchedule schedule = Schedule("blocking {} min_utilization_threshold: 0.75");
  End(&schedule, 1000, 0.5);
  End(&schedule, 500, 1);
  EXPECT_EQ(schedule.TooWellBalanced(), std::nullopt);
  End(&schedule, 1, 1);
  EXPECT_EQ(schedule.TooWellBalanced(), 1501.0 / 2000);
  End(&schedule, 499, 1);
  EXPECT_EQ(schedule.TooWellBalanced(), 1);
  End(&schedule, 1, 0.5);
  EXPECT_EQ(schedule.TooWellBalanced(), 999.5 / 1000);
}

std::vector<std::vector<int>> Turns(RebalanceSchedule schedule, int steps) {
  std::vector<std::vector<int>> turns;
  for (int step = 0; step < steps; ++step) {
    turns.emplace_back();
    for (Layer layer : schedule.Turn()) turns.back().push_back(static_cast<int>(layer));
    End(&schedule, 1);
  }
  return turns;
}

using Layers = std::vector<int>;

// ceil(5 / 2) = 3 turns, layer l in turn l mod 3: the last has fewer than the first, and the first follows at once.
TEST(RebalanceSchedule, OnlineDealsLayersOverTurns) {
  EXPECT_THAT(Turns(Schedule("online { layer_updates_per_iter: 2 }", 5), 5),
              ElementsAre(Layers{0, 3}, Layers{1, 4}, Layers{2}, Layers{0, 3}, Layers{1, 4}));
}

// 6 layers in ceil(6 / 2) = 3 turns of two each: a turn without any follows.
TEST(RebalanceSchedule, OnlinePausesAfterEvenTurns) {
  EXPECT_THAT(Turns(Schedule("online { layer_updates_per_iter: 2 }", 6), 6),
              ElementsAre(Layers{0, 3}, Layers{1, 4}, Layers{2, 5}, Layers{}, Layers{0, 3}, Layers{1, 4}));
  EXPECT_THAT(Turns(Schedule("online {}", 2), 5), ElementsAre(Layers{0}, Layers{1}, Layers{}, Layers{0}, Layers{1}));
  // All at once, or more than there are.
  for (int updates : {3, 100}) {
    EXPECT_THAT(Turns(Schedule(absl::StrCat("online { layer_updates_per_iter: ", updates, " }"), 3), 4),
                ElementsAre(Layers{0, 1, 2}, Layers{}, Layers{0, 1, 2}, Layers{}));
  }
}

// In each round every layer has its turn once, and a turn at most U layers.
TEST(RebalanceSchedule, OnlineReachesEveryLayerOnceARound) {
  for (int layers = 1; layers <= 24; ++layers) {
    for (int updates = 1; updates <= 26; ++updates) {
      const int full = (layers + updates - 1) / updates;
      RebalanceSchedule schedule = Schedule(absl::StrCat("online { layer_updates_per_iter: ", updates, " }"), layers);
      for (int round = 0; round < 2; ++round) {
        std::vector<int> turn_of_layer(layers, -1);
        size_t first = 0, last = 0;
        for (int turn = 0; turn < full; ++turn) {
          const std::vector<Layer> reached = schedule.Turn();
          ASSERT_LE(reached.size(), static_cast<size_t>(updates));
          for (Layer layer : reached) {
            ASSERT_EQ(turn_of_layer[Index(layer)], -1);
            turn_of_layer[Index(layer)] = turn;
          }
          if (turn == 0) first = reached.size();
          last = reached.size();
          End(&schedule, 1);
        }
        for (int layer = 0; layer < layers; ++layer) {
          ASSERT_EQ(turn_of_layer[layer], layer % full) << layers << " layers, " << updates << " a turn";
        }
        if (first != last) continue;
        ASSERT_THAT(schedule.Turn(), IsEmpty());
        End(&schedule, 1);
      }
    }
  }
}

TEST(RebalanceSchedule, OnlineWarmsUp) {
  EXPECT_THAT(Turns(Schedule("online {} first_after_steps: 3", 2), 8),
              ElementsAre(Layers{}, Layers{}, Layers{}, Layers{0}, Layers{1}, Layers{}, Layers{0}, Layers{1}));
}

// The turns go on across a plan for other reasons.
TEST(RebalanceSchedule, OnlineKeepsItsTurnsWhenRanksFail) {
  RebalanceSchedule schedule = Schedule("online {}", 3);
  End(&schedule, 2);
  schedule.Planned();
  EXPECT_THAT(schedule.Turn(), ElementsAre(Layer{2}));
}

TEST(RebalanceSchedule, OnlyOnlineHasTurns) {
  for (const char* const mode : {"none {}", "blocking {}", "chunked {}", "async_layer {}"}) {
    EXPECT_THAT(Turns(Schedule(mode, 2), 3), ElementsAre(Layers{}, Layers{}, Layers{})) << mode;
  }
}

// 10 and 30 tokens: mean 20, most 30.  An idle layer is balanced.
TEST(Utilization, IsMeanOverMostOfEachLayer) {
  constexpr double kSmall = 1e-5;
  EXPECT_DOUBLE_EQ(Utilization({10, 30}, 2), (20 + kSmall) / (30 + kSmall));
  EXPECT_DOUBLE_EQ(Utilization({0, 0, 0, 8}, 4), (2 + kSmall) / (8 + kSmall));
  EXPECT_EQ(Utilization({7, 7, 7}, 3), 1);
  EXPECT_EQ(Utilization({0, 0}, 2), 1);
  // The mean of the layers, not of their tokens.
  EXPECT_DOUBLE_EQ(Utilization({10, 30, 1000, 1000, 0, 0}, 2), ((20 + kSmall) / (30 + kSmall) + 2) / 3);
  EXPECT_EQ(Utilization({}, 4), 1);
}

}  // namespace
}  // namespace epsim
