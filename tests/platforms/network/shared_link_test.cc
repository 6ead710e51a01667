#include "platforms/network/shared_link.h"

#include <algorithm>
#include <map>
#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

SimTime At(int64_t picoseconds) { return SimTime(Duration(picoseconds)); }

class SharedLinkTest : public ::testing::Test {
 protected:
  std::map<int, int64_t> Solve() {
    std::map<int, int64_t> finishes;
    link_.Solve([&](PhaseId phase, SimTime finish, absl::Span<const FlowFinish>) {
      EXPECT_TRUE(finishes.emplace(static_cast<int>(phase), finish.time_since_epoch().count()).second);
    });
    return finishes;
  }
  void Add(int phase, int stream, std::vector<OfferedFlow> offers, SimTime not_before = SimTime{}) {
    link_.Add(PhaseId(phase), StreamId(stream), not_before, std::move(offers));
  }
  SharedLink link_;
};

// Alone: 100 of work at 0, then 50 at 300: busy 0-100 and 300-350.
TEST_F(SharedLinkTest, AloneItIdlesBetweenOffers) {
  Add(0, 0, {{At(0), 100}, {At(300), 50}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 350)));
}

// 0 has 300 of work from 0; 1 has 100 from 100.  Alone until 100 (200 left), halves until 1 has had its 100 (at 300,
// 100 of 0 left), alone until 400.
TEST_F(SharedLinkTest, StreamsShareEquallyFromJoinToLeave) {
  Add(0, 0, {{At(0), 300}});
  Add(1, 1, {{At(100), 100}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 400), Pair(1, 300)));
}

// Three streams with 60 each: thirds, all at 180.
TEST_F(SharedLinkTest, ThreeStreamsTakeThirds) {
  for (int i = 0; i < 3; ++i) Add(i, i, {{At(0), 60}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 180), Pair(1, 180), Pair(2, 180)));
}

// Two phases of stream 0 have together half of the link: 0 ends at 100, then 1 until 200; stream 1 has had 100 by then
// and its other 50 alone until 250.
TEST_F(SharedLinkTest, PhasesOfOneStreamQueue) {
  Add(0, 0, {{At(0), 50}});
  Add(1, 0, {{At(0), 50}});
  Add(2, 1, {{At(0), 150}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 100), Pair(1, 200), Pair(2, 250)));
}

// The second phase of a stream waits for the last offer of the first, even if the link idles meanwhile.
TEST_F(SharedLinkTest, NoOvertakingInAStream) {
  Add(0, 0, {{At(0), 10}, {At(500), 10}});
  Add(1, 0, {{At(0), 100}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 510), Pair(1, 610)));
}

TEST_F(SharedLinkTest, NothingIsServedBeforeItMayBe) {
  Add(0, 0, {{At(0), 100}, {At(30), 20}}, At(50));
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 170)));
}

// At 100 phase 0 has 200 of 300 left.  A newcomer then has the same effect as one that was known from the beginning.
TEST_F(SharedLinkTest, WhatHasBeenServedStaysServed) {
  Add(0, 0, {{At(0), 300}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 300)));
  link_.ServeUntil(At(100));
  Add(1, 1, {{At(100), 100}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 400), Pair(1, 300)));
  link_.ServeUntil(At(300));
  EXPECT_TRUE(link_.Has(PhaseId(0)));
  EXPECT_FALSE(link_.Has(PhaseId(1)));
  link_.ServeUntil(At(400));
  EXPECT_TRUE(link_.empty());
}

TEST_F(SharedLinkTest, OffersToComeMayMove) {
  Add(0, 0, {{At(0), 100}, {At(200), 50}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 250)));
  link_.ServeUntil(At(200));  // The offer at this very instant is still to come.
  link_.ReplaceFlowsToCome(PhaseId(0), {{At(400), 50}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 450)));
}

TEST_F(SharedLinkTest, ThePastIsClosed) {
  Add(0, 0, {{At(0), 100}});
  Solve();
  link_.ServeUntil(At(50));
  EXPECT_DEATH(Add(1, 1, {{At(49), 100}}), "served_until_");
  EXPECT_DEATH(link_.ServeUntil(At(49)), "served_until_");
  EXPECT_DEATH(Add(0, 1, {{At(60), 100}}), "Has");
}

// Three flows of stream 0 and one of stream 1, 60 each: quarters, all at 240.
TEST_F(SharedLinkTest, FlowsOfWhateverStreamTakeTheSame) {
  Add(0, 0, {{At(0), 60, 1}, {At(0), 60, 2}, {At(0), 60, 3}});
  Add(1, 1, {{At(0), 60, 1}});
  EXPECT_THAT(Solve(), ElementsAre(Pair(0, 240), Pair(1, 240)));
}

// Flows of 10, 20 and 50 have each been served 10 at 30, the larger ones 20 at 50, and 50 is alone until 80.
TEST_F(SharedLinkTest, SmallFlowsEndFirst) {
  Add(0, 0, {{At(0), 50, 7}, {At(0), 10, 8}, {At(0), 20, 9}});
  std::map<int, int64_t> ends;
  link_.Solve([&](PhaseId, SimTime, absl::Span<const FlowFinish> flows) {
    for (const FlowFinish& flow : flows) ends[flow.name] = flow.finish.time_since_epoch().count();
  });
  EXPECT_THAT(ends, ElementsAre(Pair(7, 80), Pair(8, 30), Pair(9, 50)));
}

// A server in steps of one picosecond, 60 parts of work each, is the fluid to within a step for every flow that comes
// or ends.
TEST_F(SharedLinkTest, IsTheFluid) {
  RandomStream random(1, "shared_link_test");
  for (int round = 0; round < 200; ++round) {
    struct Job {
      int stream;
      std::vector<OfferedFlow> flows;
      std::vector<double> waiting;
      size_t next = 0;
      int64_t finish = -1;
    };
    std::vector<Job> jobs(2 + random.Below(4));
    SharedLink link;
    int events = 0;
    for (size_t i = 0; i < jobs.size(); ++i) {
      jobs[i].stream = static_cast<int>(random.Below(3));
      int64_t time = 0;
      for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
        time += static_cast<int64_t>(random.Below(300));
        jobs[i].flows.push_back({At(time), 1.0 + static_cast<double>(random.Below(200))});
        events += 2;
      }
      link.Add(PhaseId(i), StreamId(jobs[i].stream), SimTime{}, jobs[i].flows);
    }
    for (int64_t now = 0, left = static_cast<int64_t>(jobs.size()); left > 0; ++now) {
      std::vector<Job*> served;
      double flows = 0;
      for (size_t i = 0; i < jobs.size(); ++i) {
        Job& job = jobs[i];
        while (job.next < job.flows.size() && job.flows[job.next].time <= At(now)) {
          job.waiting.push_back(60 * job.flows[job.next++].picoseconds);
        }
        const bool first = std::none_of(jobs.begin(), jobs.begin() + static_cast<std::ptrdiff_t>(i),
                                        [&](const Job& j) { return j.stream == job.stream && j.finish < 0; });
        if (job.finish >= 0 || !first) continue;
        served.push_back(&job);
        flows += static_cast<double>(job.waiting.size());
      }
      for (Job* job : served) {
        for (double& left_of_flow : job->waiting) left_of_flow -= 60 / flows;
        std::erase_if(job->waiting, [](double left_of_flow) { return left_of_flow <= 1e-6; });
        if (!job->waiting.empty() || job->next < job->flows.size()) continue;
        job->finish = now + 1;
        --left;
      }
    }
    link.Solve([&](PhaseId phase, SimTime finish, absl::Span<const FlowFinish>) {
      EXPECT_NEAR(finish.time_since_epoch().count(), jobs[static_cast<size_t>(phase)].finish, events) << round;
    });
  }
}

}  // namespace
}  // namespace epsim
