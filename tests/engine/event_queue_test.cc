#include "engine/event_queue.h"

#include <algorithm>
#include <array>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

SimTime At(int64_t picoseconds) { return SimTime(Duration(picoseconds)); }

class EventQueueTest : public ::testing::Test {
 protected:
  void Say(int64_t when, Phase phase, const std::string& word) {
    queue_.Schedule(At(when), phase, [this, word] { said_.push_back(word); });
  }
  void RunAll() {
    while (!queue_.empty()) queue_.Step();
  }
  EventQueue queue_;
  std::vector<std::string> said_;
};

TEST_F(EventQueueTest, RunsInOrderOfTime) {
  Say(30, Phase::kComplete, "last");
  Say(10, Phase::kObserve, "first");
  Say(20, Phase::kDecide, "middle");
  EXPECT_EQ(queue_.pending(), 3);
  RunAll();
  EXPECT_THAT(said_, ElementsAre("first", "middle", "last"));
  EXPECT_EQ(queue_.now(), At(30));
}

TEST_F(EventQueueTest, AtOneInstantPhasesThenSchedulingOrderDecide) {
  Say(5, Phase::kObserve, "observe");
  Say(5, Phase::kArrive, "arrive 1");
  Say(5, Phase::kComplete, "complete");
  Say(5, Phase::kDecide, "decide");
  Say(5, Phase::kArrive, "arrive 2");
  RunAll();
  EXPECT_THAT(said_, ElementsAre("complete", "arrive 1", "arrive 2", "decide", "observe"));
}

TEST_F(EventQueueTest, StepStopsTheClockAtEachEvent) {
  Say(10, Phase::kComplete, "a");
  Say(20, Phase::kComplete, "b");
  EXPECT_EQ(queue_.now(), At(0));
  queue_.Step();
  EXPECT_EQ(queue_.now(), At(10));
  EXPECT_EQ(queue_.pending(), 1);
  queue_.Step();
  EXPECT_EQ(queue_.now(), At(20));
  EXPECT_TRUE(queue_.empty());
}

// An event scheduled at now joins the instant: it runs before later times, and before later phases of this instant.
TEST_F(EventQueueTest, EventsMayScheduleAtNow) {
  queue_.Schedule(At(10), Phase::kArrive, [this] {
    said_.push_back("outer");
    Say(10, Phase::kObserve, "observe");
    Say(10, Phase::kArrive, "again");
    Say(10, Phase::kComplete, "complete");  // An earlier phase than the running one: still this instant, and next.
  });
  Say(10, Phase::kDecide, "decide");
  Say(11, Phase::kComplete, "later");
  RunAll();
  EXPECT_THAT(said_, ElementsAre("outer", "complete", "again", "decide", "observe", "later"));
}

// Whatever is scheduled, and whenever, the order of running is that of a stable sort by (time, phase).  Times from a
// small range make ties the rule; the queue grows and shrinks between 0 and 3,000 events.
TEST_F(EventQueueTest, OrderIsThatOfAStableSort) {
  RandomStream random(1, "event_queue_test");
  struct Event {
    int64_t when;
    int phase;
    int serial;
  };
  for (int round = 0; round < 20; ++round) {
    EventQueue queue;
    std::vector<Event> waiting;  // Scheduling order.
    int serial = 0, ran = -1;
    for (int turn = 0; turn < 200; ++turn) {
      for (uint64_t n = random.Below(30); n > 0; --n) {
        const Event event{queue.now().time_since_epoch().count() + static_cast<int64_t>(random.Below(5)),
                          static_cast<int>(random.Below(4)), serial++};
        waiting.push_back(event);
        queue.Schedule(At(event.when), static_cast<Phase>(event.phase), [&ran, event] { ran = event.serial; });
      }
      for (uint64_t n = std::min<uint64_t>(random.Below(30), waiting.size()); n > 0; --n) {
        // The first of the smallest: what a stable sort would put first.
        const auto first = std::min_element(waiting.begin(), waiting.end(), [](const Event& a, const Event& b) {
          return std::tuple(a.when, a.phase) < std::tuple(b.when, b.phase);
        });
        queue.Step();
        ASSERT_EQ(ran, first->serial);
        ASSERT_EQ(queue.now(), At(first->when));
        waiting.erase(first);
        ASSERT_EQ(queue.pending(), waiting.size());
      }
    }
  }
}

TEST_F(EventQueueTest, HoldsManyEvents) {
  RandomStream random(1, "many");
  constexpr int kEvents = 100'000;
  int ran = 0;
  SimTime last{};
  for (int i = 0; i < kEvents; ++i) {
    queue_.Schedule(At(static_cast<int64_t>(random.Below(1'000'000))), Phase::kComplete, [&] {
      EXPECT_GE(queue_.now(), last);
      last = queue_.now();
      ++ran;
    });
  }
  EXPECT_EQ(queue_.pending(), kEvents);
  RunAll();
  EXPECT_EQ(ran, kEvents);
}

TEST_F(EventQueueTest, TimesReachTheEndOfTheClock) {
  const SimTime end = SimTime::max();
  queue_.Schedule(end, Phase::kObserve, [this] { said_.push_back("end"); });
  Say(1, Phase::kComplete, "begin");
  RunAll();
  EXPECT_THAT(said_, ElementsAre("begin", "end"));
  EXPECT_EQ(queue_.now(), end);
}

// Actions own what they hold: each is destroyed once, after it has run or with the queue.
TEST_F(EventQueueTest, ActionsAreDestroyedOnce) {
  const auto token = std::make_shared<int>(0);
  {
    EventQueue queue;
    queue.Schedule(At(1), Phase::kComplete, [token] { ++*token; });
    queue.Schedule(At(2), Phase::kComplete, [token, wide = std::array<char, 200>{}] { *token += 10 + wide[0]; });
    queue.Schedule(At(3), Phase::kComplete, [token] { *token += 100; });
    EXPECT_EQ(token.use_count(), 4);
    queue.Step();
    EXPECT_EQ(token.use_count(), 3);
    queue.Step();
    EXPECT_EQ(token.use_count(), 2);
    EXPECT_EQ(*token, 11);
  }
  EXPECT_EQ(token.use_count(), 1);
  EXPECT_EQ(*token, 11);
}

TEST_F(EventQueueTest, ActionsMayBeMoveOnlyAndOutliveTheGrowthOfTheQueue) {
  auto box = std::make_unique<int>(7);
  int seen = 0;
  queue_.Schedule(At(1), Phase::kComplete, [this, &seen, box = std::move(box)] {
    for (int i = 0; i < 1000; ++i) queue_.Schedule(At(2), Phase::kComplete, [] {});
    seen = *box;  // Still where it was, though the queue has grown under it.
  });
  RunAll();
  EXPECT_EQ(seen, 7);
}

TEST_F(EventQueueTest, ThePastIsClosed) {
  Say(10, Phase::kComplete, "a");
  queue_.Step();
  Say(10, Phase::kComplete, "now is allowed");
  EXPECT_DEATH(Say(9, Phase::kComplete, "past"), "when >= now_");
  EXPECT_DEATH(EventQueue().Schedule(At(-1), Phase::kComplete, [] {}), "when >= now_");
}

TEST_F(EventQueueTest, NothingToStep) { EXPECT_DEATH(queue_.Step(), "!empty()"); }

}  // namespace
}  // namespace epsim
