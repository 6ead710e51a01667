// Links of 1 byte per nanosecond inside a node (routes of 5 ns) and 1 byte per 2 ns between nodes (routes of 7 ns).
#include "platforms/network/port.h"

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "platforms/network/shared_link.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

SimTime At(int64_t picoseconds) { return SimTime(Duration(picoseconds)); }

struct Flow {
  int source, destination;
  int64_t bytes;
};

class PortTest : public ::testing::Test {
 protected:
  struct Told {
    int64_t at;  // When the listener was called.
    std::vector<int64_t> finish;
  };

  PortTest() { Build(4, 4); }

  void Build(int ranks, int gpus_per_node) {
    PlatformSpec platform;
    ASSERT_TRUE(ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" bf16: "1 TFLOP/s" }
                                  nvlink { bandwidth: "1 GB/s" latency: "5 ns" }
                                  nic { bandwidth: "500 MB/s" latency: "7 ns" })",
                               "platform", &platform)
                    .ok());
    platform.set_gpus_per_node(gpus_per_node);
    auto cluster = Cluster::Create(platform, ranks);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    network_.reset();
    cluster_ = std::make_unique<Cluster>(*std::move(cluster));
    queue_ = std::make_unique<EventQueue>();
    network_ = NewPortNetwork({}, *cluster_, queue_.get());
    told_.clear();
  }

  TrafficMatrix Matrix(const std::vector<Flow>& flows) const {
    const int ranks = cluster_->ranks();
    TrafficMatrix traffic{ranks, std::vector<int64_t>(static_cast<size_t>(ranks) * ranks)};
    for (const Flow& flow : flows) traffic.bytes[flow.source * ranks + flow.destination] += flow.bytes;
    return traffic;
  }
  std::vector<SimTime> Times(const std::vector<int64_t>& picoseconds) const {
    std::vector<SimTime> times;
    for (int64_t t : picoseconds) times.push_back(At(t));
    return times;
  }

  PhaseId Start(int stream, const std::vector<Flow>& flows, const std::vector<int64_t>& release) {
    return network_->Start(StreamId(stream), Matrix(flows), Times(release),
                           [this](PhaseId phase, absl::Span<const SimTime> finish) {
                             Told told{queue_->now().time_since_epoch().count(), {}};
                             for (SimTime t : finish) told.finish.push_back(t.time_since_epoch().count());
                             told_[phase].push_back(told);
                           });
  }
  // Runs what is due before `picoseconds`, and stops the clock there.
  void RunUntil(int64_t picoseconds) {
    bool reached = false;
    queue_->Schedule(At(picoseconds), Phase::kComplete, [&reached] { reached = true; });
    while (!reached) queue_->Step();
  }
  void RunAll() {
    while (!queue_->empty()) queue_->Step();
  }
  // The finishes that were told last.
  const std::vector<int64_t>& Finish(PhaseId phase) { return told_[phase].back().finish; }

  std::unique_ptr<Cluster> cluster_;
  std::unique_ptr<EventQueue> queue_;
  std::unique_ptr<Network> network_;
  std::map<PhaseId, std::vector<Told>> told_;
};

// 10 B take 10 ns and 5 ns of way, for the sender as for the receiver; the others only hear that nothing comes.
TEST_F(PortTest, OneSender) {
  const PhaseId phase = Start(0, {{0, 1, 10}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(15'000, 15'000, 5'000, 5'000));
  ASSERT_EQ(told_[phase].size(), 1);
  EXPECT_EQ(told_[phase][0].at, 5'000);  // Told at the earliest finish.
}

// 30 B through the receiver's link.  It takes from both alike: the 10 B are through at 20, the 20 B at 30.
TEST_F(PortTest, TwoSendersToOneReceiver) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(25'000, 35'000, 35'000, 5'000));
}

TEST_F(PortTest, OneSenderToTwoReceivers) {
  const PhaseId phase = Start(0, {{0, 1, 10}, {0, 2, 20}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 25'000, 35'000, 5'000));
}

// Into 3: 6 B from each of 0, 1 and 2, all through at 18.  Rank 0 also sends 2 B to 1: through at 4 (2 B of each of its
// flows), long before.
TEST_F(PortTest, ARankWaitsForWhatItSendsToTheBusiest) {
  const PhaseId phase = Start(0, {{0, 3, 6}, {1, 3, 6}, {2, 3, 6}, {0, 1, 2}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(23'000, 23'000, 23'000, 23'000));
}

// Rank 1 comes at 50 ns, when rank 0's bytes are long through: the receiver's link is busy 0-10 and 50-70.
TEST_F(PortTest, StaggeredReleasesLeaveTheLinkIdle) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 50'000, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(55'000, 75'000, 75'000, 55'000));
}

// Rank 1 comes at 4 ns; the link is busy until 30.  Rank 0's 10 B are taken to be through when as much of rank 1's is.
TEST_F(PortTest, StaggeredReleasesQueue) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 4'000, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(25'000, 35'000, 35'000, 9'000));
}

// Without traffic everyone waits for the last release and the way from there; the last one only for the second last.
TEST_F(PortTest, NoTokensStillHasToBeHeard) {
  const PhaseId phase = Start(0, {}, {0, 300, 100, 200});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(5'300, 5'200, 5'300, 5'300));
}

TEST_F(PortTest, OneRankFinishesAtItsRelease) {
  Build(1, 4);
  const PhaseId phase = Start(0, {{0, 0, 1000}}, {700});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(700));
}

TEST_F(PortTest, TheDiagonalIsIgnored) {
  const PhaseId phase = Start(0, {{2, 2, 1'000'000}, {3, 3, -5}, {0, 1, 10}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(15'000, 15'000, 5'000, 5'000));
}

// Two nodes of two: 10 B over the NICs take 20 ns and a way of 7; ranks 1 and 3 hear from the other node after 7.
TEST_F(PortTest, BetweenNodes) {
  Build(4, 2);
  const PhaseId phase = Start(0, {{0, 2, 10}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(27'000, 7'000, 27'000, 7'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNic);
}

// Rank 0 sends 30 B inside its node (30 + 5) while its NIC sends 10 B (20 + 7): the two do not disturb each other.
TEST_F(PortTest, NvlinkAndNicWorkAtOnce) {
  Build(4, 2);
  const PhaseId phase = Start(0, {{0, 1, 30}, {0, 2, 10}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 35'000, 27'000, 7'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNvlink);
}

// Rank 3 is 90 ns late: its own node hears it after 5 ns, the other after 7, itself the others' long ago.
TEST_F(PortTest, HearingOfALateRankTakesTheWayFromThere) {
  Build(4, 2);
  const PhaseId phase = Start(0, {}, {0, 0, 0, 90'000});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(97'000, 97'000, 95'000, 90'000));
}

// One byte at 3 B/ns is a third of a nanosecond: rounded up once, after the sum of three.  All three end together.
TEST_F(PortTest, TimesAreRoundedUpOnce) {
  PlatformSpec platform = cluster_->platform();
  platform.mutable_nvlink()->set_bandwidth("3 GB/s");
  auto cluster = Cluster::Create(platform, 4);
  ASSERT_TRUE(cluster.ok());
  network_ = NewPortNetwork({}, *cluster, queue_.get());
  const PhaseId phase = Start(0, {{0, 3, 1}, {1, 3, 1}, {2, 3, 1}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(6'000, 6'000, 6'000, 6'000));
  network_.reset();  // Before its cluster.
}

TEST_F(PortTest, PhasesOfAStreamFollowEachOther) {
  const PhaseId first = Start(0, {{0, 1, 10}}, {0, 0, 0, 0});
  const PhaseId second = Start(0, {{0, 1, 20}, {2, 3, 1}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(first), ElementsAre(15'000, 15'000, 5'000, 5'000));
  EXPECT_THAT(Finish(second), ElementsAre(35'000, 35'000, 6'000, 6'000));
}

// The first phase is over at 15 ns; the second finds the link free.
TEST_F(PortTest, ALinkIsFreeAgainAfterAPhase) {
  Start(0, {{0, 1, 10}}, {0, 0, 0, 0});
  RunUntil(40'000);
  const PhaseId second = Start(0, {{0, 1, 20}}, {40'000, 40'000, 40'000, 40'000});
  RunAll();
  EXPECT_THAT(Finish(second), ElementsAre(65'000, 65'000, 45'000, 45'000));
}

// 30 B of stream 0 from 0, 10 B of stream 1 from 10 ns, both from 0 to 1.  Alone until 10 (20 B left), halves until 30
// (stream 1 has had its 10, 10 B of stream 0 left), alone until 40; each plus 5.
TEST_F(PortTest, StreamsShareALink) {
  const PhaseId phase = Start(0, {{0, 1, 30}}, {0, 0, 0, 0});
  RunUntil(10'000);
  const PhaseId other = Start(1, {{0, 1, 10}}, {10'000, 10'000, 10'000, 10'000});
  RunAll();
  EXPECT_THAT(Finish(other), ElementsAre(35'000, 35'000, 15'000, 15'000));
  // Told at its earliest finish as if it stayed alone, and again when the other joined.
  ASSERT_EQ(told_[phase].size(), 2);
  EXPECT_EQ(told_[phase][0].at, 5'000);
  EXPECT_THAT(told_[phase][0].finish, ElementsAre(35'000, 35'000, 5'000, 5'000));
  EXPECT_EQ(told_[phase][1].at, 10'000);
  EXPECT_THAT(told_[phase][1].finish, ElementsAre(45'000, 45'000, 5'000, 5'000));
}

// Only the common link is shared: 0 -> 1 and 0 -> 2 meet at rank 0's outgoing link, not at the receivers'.
TEST_F(PortTest, OnlyTheCommonLinkIsShared) {
  const PhaseId a = Start(0, {{0, 1, 10}}, {0, 0, 0, 0});
  const PhaseId b = Start(1, {{0, 2, 10}}, {0, 0, 0, 0});
  const PhaseId c = Start(2, {{3, 1, 4}}, {0, 0, 0, 0});
  RunAll();
  // Out of 0: a and b take turns until 20.  Into 1: a 10 and c 4 share until 8 (c), then a until 14.  Into 2: b
  // until 10.  Each is done, for its sender as for its receiver, when it is through both.
  EXPECT_THAT(Finish(a), ElementsAre(25'000, 25'000, 5'000, 5'000));
  EXPECT_THAT(Finish(b), ElementsAre(25'000, 5'000, 25'000, 5'000));
  EXPECT_THAT(Finish(c), ElementsAre(5'000, 13'000, 5'000, 13'000));
}

// Into 0: three flows of a dispatch and one of a migration, 10 B each, a quarter of the link for each until 40.
TEST_F(PortTest, StreamsShareByFlows) {
  const PhaseId dispatch = Start(0, {{1, 0, 10}, {2, 0, 10}, {3, 0, 10}}, {0, 0, 0, 0});
  const PhaseId migration = Start(1, {{3, 0, 10}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(dispatch), ElementsAre(45'000, 45'000, 45'000, 45'000));
  EXPECT_THAT(Finish(migration), ElementsAre(45'000, 5'000, 5'000, 45'000));
}

// What left the link before the other stream came stays as it was, though it is still on its way: 10 B at 20 + 5 when
// the migration joins at 22.
TEST_F(PortTest, WhatHasLeftALinkStaysAsItWas) {
  const PhaseId phase = Start(0, {{0, 1, 10}, {0, 2, 30}}, {0, 0, 0, 0});
  RunUntil(22'000);
  Start(1, {{0, 3, 10}}, {22'000, 22'000, 22'000, 22'000});
  RunAll();
  // Of the 30 B to 2, 12 have gone at 22 (10 by 20, then alone); 18 and the migration's 10 share until 42, the last 8 B
  // take until 50.
  EXPECT_THAT(Finish(phase), ElementsAre(55'000, 25'000, 55'000, 5'000));
}

// The dispatch of rank 1 is not there yet: a migration uses the link of rank 2 alone until 50 ns, then they share.
// Migration 100 B from 0: 50 left at 50; dispatch 20 B from 50: done at 90; migration 30 B left: 120.
TEST_F(PortTest, ALateRankSharesOnlyFromItsRelease) {
  const PhaseId migration = Start(1, {{0, 2, 100}}, {0, 0, 0, 0});
  const PhaseId dispatch = Start(0, {{1, 2, 20}}, {0, 50'000, 0, 0});
  RunAll();
  EXPECT_EQ(Finish(migration)[2], 125'000);
  EXPECT_EQ(Finish(dispatch)[2], 95'000);
}

// Rank 1 slips from 50 to 80 ns before it was told, and the others with it.
TEST_F(PortTest, ReviseMovesWhatIsToCome) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 50'000, 0, 0});
  const PhaseId next = Start(0, {{1, 2, 1}}, {0, 50'000, 0, 0});
  RunUntil(20'000);
  network_->Revise(phase, Times({0, 80'000, 0, 0}));
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(85'000, 105'000, 105'000, 85'000));
  ASSERT_EQ(told_[phase].size(), 1);
  EXPECT_EQ(told_[phase][0].at, 85'000);
  EXPECT_THAT(Finish(next), ElementsAre(55'000, 106'000, 106'000, 55'000));  // Queues behind the revised one.
}

TEST_F(PortTest, ReviseMayBringAReleaseForward) {
  const PhaseId phase = Start(0, {{1, 2, 20}}, {0, 50'000, 0, 0});
  RunUntil(20'000);
  network_->Revise(phase, Times({0, 30'000, 0, 0}));
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 55'000, 55'000, 35'000));
  EXPECT_EQ(told_[phase][0].at, 35'000);
}

// As ALateRankSharesOnlyFromItsRelease, but the rank slips to 70: migration 30 B left at 70, dispatch 20 B until 110,
// migration 10 B left: 120.
TEST_F(PortTest, ReviseOnASharedLink) {
  const PhaseId migration = Start(1, {{0, 2, 100}}, {0, 0, 0, 0});
  const PhaseId dispatch = Start(0, {{1, 2, 20}}, {0, 50'000, 0, 0});
  RunUntil(40'000);
  network_->Revise(dispatch, Times({0, 70'000, 0, 0}));
  RunAll();
  EXPECT_EQ(Finish(migration)[2], 125'000);
  EXPECT_EQ(Finish(dispatch)[2], 115'000);
}

TEST_F(PortTest, BytesAreCountedOnTheirLinks) {
  Build(4, 2);
  Start(0, {{0, 1, 3}, {0, 2, 5}, {1, 1, 100}}, {0, 0, 0, 0});
  Start(1, {{0, 2, 7}}, {0, 0, 0, 0});
  const auto on_route = [this](int source, int destination) {
    const Route route = cluster_->route(Rank(source), Rank(destination));
    return std::vector<int64_t>{network_->bytes_on_link()[Index(route.links()[0])],
                                network_->bytes_on_link()[Index(route.links()[1])]};
  };
  EXPECT_THAT(on_route(0, 1), ElementsAre(3, 3));
  EXPECT_THAT(on_route(0, 2), ElementsAre(12, 12));
  EXPECT_THAT(on_route(1, 0), ElementsAre(0, 0));
  RunAll();
}

// A listener may start phases, of its own and of other streams, while it is told.
TEST_F(PortTest, ListenersMayStartPhases) {
  std::vector<int64_t> finishes;
  int left = 100;
  std::function<void(absl::Span<const SimTime>)> next = [&](absl::Span<const SimTime> release) {
    if (left-- == 0) return;
    network_->Start(StreamId(left % 2), Matrix({{0, 1, 10}}), release,
                    [&, told = false](PhaseId, absl::Span<const SimTime> finish) mutable {
                      const std::vector<SimTime> before(finish.begin(), finish.end());
                      if (!std::exchange(told, true)) next(finish);
                      EXPECT_EQ(std::vector<SimTime>(finish.begin(), finish.end()), before);
                    });
  };
  next(Times({0, 0, 0, 0}));
  RunAll();
  EXPECT_EQ(left, -1);
}

// Whatever comes when and is revised how often: what is told last is what a fluid that knew everything beforehand
// gives. (Within a picosecond for each phase: a lone phase's end is rounded before the next of its stream begins.)  For
// every rank where the ranks of a phase are released together; otherwise for the last of them.
TEST_F(PortTest, InstalmentsAgreeWithTheWholeFluid) {
  RandomStream random(1, "port_test");
  for (int round = 0; round < 120; ++round) {
    const int per_node = round % 2 == 0 ? 2 : 4;
    const bool together = round % 4 < 2;
    Build(4, per_node);
    struct Known {
      PhaseId id;
      int stream;
      TrafficMatrix traffic;
      std::vector<int64_t> release;
    };
    std::vector<Known> phases;
    int64_t now = 0;
    const auto later = [&](bool always) {
      return now + static_cast<int64_t>(always ? 1 : random.Below(2)) * static_cast<int64_t>(random.Below(60'000));
    };
    while (phases.size() < 12) {
      now += static_cast<int64_t>(random.Below(3)) * static_cast<int64_t>(random.Below(40'000));
      RunUntil(now);
      for (Known& known : phases) {
        // Until it is told, releases that are to come may move.
        if (!told_[known.id].empty() || random.Below(2) == 0) continue;
        if (together && known.release[0] >= now) known.release.assign(4, later(true));
        for (int64_t& t : known.release) {
          if (!together && t >= now && random.Below(2) == 0) t = later(true);
        }
        network_->Revise(known.id, Times(known.release));
      }
      Known known{PhaseId(0), static_cast<int>(random.Below(3)), Matrix({}), {}};
      for (int64_t& bytes : known.traffic.bytes) {
        bytes = random.Below(3) == 0 ? 0 : static_cast<int64_t>(random.Below(30));
      }
      for (int rank = 0; rank < 4; ++rank) known.release.push_back(later(false));
      if (together) known.release.assign(4, known.release[0]);
      std::vector<Flow> flows;
      for (int i = 0; i < 16; ++i) flows.push_back({i / 4, i % 4, known.traffic.bytes[i]});
      known.id = Start(known.stream, flows, known.release);
      phases.push_back(known);
    }
    RunAll();

    std::map<PhaseId, std::vector<int64_t>> expected;
    for (const Known& known : phases) {
      std::vector<int64_t>& finish = expected[known.id];
      finish = known.release;
      for (int s = 0; s < 4; ++s) {
        for (int d = 0; d < 4; ++d) {
          if (s == d) continue;
          finish[d] = std::max(finish[d], known.release[s] + cluster_->route(Rank(s), Rank(d)).latency.count());
        }
      }
    }
    for (size_t link = 0; link < cluster_->links().size(); ++link) {
      const LinkSpec& spec = cluster_->links()[link];
      const int64_t per_byte = spec.link_class == LinkClass::kNic ? 2'000 : 1'000;
      const int64_t latency = spec.link_class == LinkClass::kNic ? 7'000 : 5'000;
      SharedLink fluid;
      fluid.Begin(At(0));
      for (const Known& known : phases) {
        std::vector<OfferedFlow> flows;
        for (int other = 0; other < 4; ++other) {
          const int s = spec.outgoing ? spec.place : other, d = spec.outgoing ? other : spec.place;
          const bool same_node = s / per_node == d / per_node;
          if (s == d || same_node != (spec.link_class == LinkClass::kNvlink)) continue;
          const int64_t bytes = known.traffic.bytes[s * 4 + d];
          if (bytes > 0) flows.push_back({At(known.release[s]), static_cast<double>(bytes * per_byte), s * 4 + d});
        }
        std::sort(flows.begin(), flows.end(),
                  [](const OfferedFlow& a, const OfferedFlow& b) { return a.time < b.time; });
        if (!flows.empty()) fluid.Add(known.id, StreamId(known.stream), SimTime{}, flows);
      }
      fluid.Solve([&](PhaseId phase, SimTime, absl::Span<const FlowFinish> flows) {
        for (const FlowFinish& flow : flows) {
          for (const int rank : {flow.name / 4, flow.name % 4}) {
            int64_t& expect = expected[phase][rank];
            expect = std::max(expect, flow.finish.time_since_epoch().count() + latency);
          }
        }
      });
    }
    for (const Known& known : phases) {
      const std::vector<int64_t>&finish = Finish(known.id), &expect = expected[known.id];
      EXPECT_NEAR(*std::max_element(finish.begin(), finish.end()), *std::max_element(expect.begin(), expect.end()), 12)
          << "round " << round << " phase " << static_cast<int>(known.id);
      for (int rank = 0; together && rank < 4; ++rank) {
        EXPECT_NEAR(finish[rank], expect[rank], 12)
            << "round " << round << " phase " << static_cast<int>(known.id) << " rank " << rank;
      }
    }
  }
}

// Links do not wait for each other, so neither another stream's traffic nor a later release speeds any rank up.
TEST_F(PortTest, MoreLoadIsNeverFaster) {
  RandomStream random(1, "load");
  const auto flows = [&] {
    std::vector<Flow> result;
    for (int i = 0; i < 16; ++i) {
      if (i / 4 != i % 4 && random.Below(4) != 0)
        result.push_back({i / 4, i % 4, static_cast<int64_t>(random.Below(50))});
    }
    return result;
  };
  for (int round = 0; round < 100; ++round) {
    const std::vector<Flow> load = flows(), other = flows();
    std::vector<int64_t> release(4), other_release(4);
    for (int64_t& t : release) t = static_cast<int64_t>(random.Below(60'000));
    for (int64_t& t : other_release) t = static_cast<int64_t>(random.Below(60'000));
    const auto finish = [&](const std::vector<int64_t>& released, bool with_other) {
      Build(4, round % 2 == 0 ? 2 : 4);
      const PhaseId phase = Start(0, load, released);
      if (with_other) Start(1, other, other_release);
      RunAll();
      return Finish(phase);
    };
    std::vector<int64_t> later = release;
    later[random.Below(4)] += 10'000;
    const std::vector<int64_t> alone = finish(release, false), late = finish(later, false),
                               with = finish(release, true);
    for (int rank = 0; rank < 4; ++rank) {
      EXPECT_GE(late[rank], alone[rank]) << "round " << round;
      EXPECT_GE(with[rank], alone[rank]) << "round " << round;
    }
  }
}

// Links that ranks share, on platforms of their own.
class PortRoutesTest : public PortTest {
 protected:
  // `more` completes a platform of four ranks.
  void BuildFrom(const std::string& more, const std::string& overrides = "") {
    PlatformSpec platform;
    ClusterOverrides parsed;
    ASSERT_TRUE(
        ParseTextProto(R"(gpu { name: "G" memory: "1 GB" memory_bandwidth: "1 GB/s" bf16: "1 TFLOP/s" })" + more,
                       "platform", &platform)
            .ok());
    ASSERT_TRUE(ParseTextProto(overrides, "overrides", &parsed).ok());
    auto cluster = Cluster::Create(platform, 4, parsed);
    ASSERT_TRUE(cluster.ok()) << cluster.status();
    network_.reset();
    cluster_ = std::make_unique<Cluster>(*std::move(cluster));
    queue_ = std::make_unique<EventQueue>();
    network_ = NewPortNetwork({}, *cluster_, queue_.get());
    told_.clear();
  }
  std::vector<int64_t> FinishOf(const TrafficMatrix& traffic) {
    std::vector<int64_t> finishes;
    network_->Start(StreamId(0), traffic, Times({0, 0, 0, 0}), [&](PhaseId, absl::Span<const SimTime> finish) {
      finishes.clear();
      for (SimTime t : finish) finishes.push_back(t.time_since_epoch().count());
    });
    RunAll();
    return finishes;
  }
  int64_t BytesOn(LinkClass link_class, int place, bool outgoing) const {
    for (size_t link = 0; link < cluster_->links().size(); ++link) {
      const LinkSpec& spec = cluster_->links()[link];
      if (spec.link_class == link_class && spec.place == place && spec.outgoing == outgoing) {
        return network_->bytes_on_link()[link];
      }
    }
    return -1;
  }
};

// One NIC of 1 B per 2 ns for both GPUs of a node: 30 B out of node 0 and into node 1.  The 10 B are through when 20 B
// are, at 40, the 20 B at 60.
TEST_F(PortRoutesTest, SharedNics) {
  BuildFrom(R"(gpus_per_node: 2 nvlink { bandwidth: "1 GB/s" latency: "5 ns" }
               nic { bandwidth: "500 MB/s" latency: "7 ns" per_node: 1 })");
  EXPECT_THAT(FinishOf(Matrix({{0, 2, 10}, {1, 3, 20}})), ElementsAre(47'000, 67'000, 47'000, 67'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNic);
  EXPECT_EQ(BytesOn(LinkClass::kNic, 0, true), 30);
  EXPECT_EQ(BytesOn(LinkClass::kNic, 1, false), 30);
}

// Two nodes a leaf, 1 B/ns below it, half above: 20 B over the uplink take 40 ns and a way of 7 + 1.  The 4 B from 0 to
// 1 stay below and are through rank 0's NIC when 8 B are, at 16.
TEST_F(PortRoutesTest, LeafUplinks) {
  BuildFrom(R"(gpus_per_node: 1 nvlink { bandwidth: "1 GB/s" latency: "5 ns" }
               nic { bandwidth: "500 MB/s" latency: "7 ns" }
               fabric { leaf { nodes: 2 oversubscription: 2 latency: "1 ns" } })");
  EXPECT_THAT(FinishOf(Matrix({{0, 2, 10}, {1, 3, 10}, {0, 1, 4}})), ElementsAre(48'000, 48'000, 48'000, 48'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kLeaf);
  EXPECT_EQ(BytesOn(LinkClass::kLeaf, 0, true), 20);
  EXPECT_EQ(BytesOn(LinkClass::kLeaf, 1, false), 20);
  EXPECT_EQ(BytesOn(LinkClass::kNic, 0, true), 14);
}

// Without NVLink: 20 B over the switch's uplink, 4 B below it.
TEST_F(PortRoutesTest, PcieSwitches) {
  BuildFrom(R"(gpus_per_node: 4 pcie { bandwidth: "1 GB/s" latency: "5 ns" gpus_per_switch: 2 })");
  EXPECT_THAT(FinishOf(Matrix({{0, 2, 10}, {1, 3, 10}, {0, 1, 4}})), ElementsAre(25'000, 25'000, 25'000, 25'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kPcieSwitch);
  EXPECT_EQ(BytesOn(LinkClass::kPcie, 0, true), 14);
  EXPECT_EQ(BytesOn(LinkClass::kPcieSwitch, 0, true), 20);
}

// 40 B out of the host's memory at 1 B/ns: the 10 B are through when 20 B are.
TEST_F(PortRoutesTest, FromTheHost) {
  BuildFrom(R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "5 ns" }
               pcie { bandwidth: "1 GB/s" latency: "6 ns" } host { memory_bandwidth: "1 GB/s" })");
  TrafficMatrix traffic = Matrix({});
  traffic.from_host = {10, 30, 0, 0};
  EXPECT_THAT(FinishOf(traffic), ElementsAre(26'000, 46'000, 5'000, 5'000));
  EXPECT_EQ(network_->limiting_class(), LinkClass::kHostMemory);
  EXPECT_EQ(BytesOn(LinkClass::kHostMemory, 0, true), 40);
  EXPECT_EQ(BytesOn(LinkClass::kPcie, 1, false), 30);
}

// Into rank 1's PCIe port: 30 B from its host and 10 from rank 0, which are through when 20 B are.
TEST_F(PortRoutesTest, FromTheHostAndFromRanksOverPcie) {
  BuildFrom(R"(gpus_per_node: 4 pcie { bandwidth: "1 GB/s" latency: "5 ns" })");
  TrafficMatrix traffic = Matrix({{0, 1, 10}});
  traffic.from_host = {0, 30, 0, 0};
  EXPECT_THAT(FinishOf(traffic), ElementsAre(25'000, 45'000, 5'000, 5'000));
  EXPECT_EQ(BytesOn(LinkClass::kPcie, 1, false), 40);
}

// NICs behind the PCIe ports: 10 B take 20 ns at the NICs.  5 B inside the node are through rank 0's PCIe port when 10
// B are.
TEST_F(PortRoutesTest, NicsOverPcie) {
  BuildFrom(R"(gpus_per_node: 2 pcie { bandwidth: "1 GB/s" latency: "5 ns" }
               nic { bandwidth: "500 MB/s" latency: "7 ns" over_pcie: true })");
  EXPECT_THAT(FinishOf(Matrix({{0, 2, 10}, {0, 1, 5}})), ElementsAre(27'000, 15'000, 27'000, 7'000));
  EXPECT_EQ(BytesOn(LinkClass::kPcie, 0, true), 15);
  EXPECT_EQ(BytesOn(LinkClass::kPcie, 2, false), 10);
  EXPECT_EQ(network_->limiting_class(), LinkClass::kNic);
}

TEST_F(PortRoutesTest, OverTheNetworkInsideANode) {
  BuildFrom(R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "5 ns" }
               nic { bandwidth: "500 MB/s" latency: "7 ns" })");
  TrafficMatrix traffic = Matrix({{0, 1, 10}});
  traffic.way = Way::kNetwork;
  EXPECT_THAT(FinishOf(traffic), ElementsAre(27'000, 27'000, 7'000, 7'000));
  EXPECT_EQ(BytesOn(LinkClass::kNic, 0, true), 10);
  EXPECT_EQ(BytesOn(LinkClass::kNvlink, 0, true), 0);
}

// At half the efficiency a byte takes twice its time; what is counted are the bytes.
TEST_F(PortRoutesTest, Efficiency) {
  Build(4, 2);
  TrafficMatrix traffic = Matrix({{0, 1, 10}, {2, 0, 10}});
  traffic.efficiency = {.node = 0.5, .network = 0.25};
  EXPECT_THAT(FinishOf(traffic), ElementsAre(87'000, 25'000, 87'000, 7'000));
  EXPECT_EQ(BytesOn(LinkClass::kNvlink, 0, true), 10);
  EXPECT_EQ(BytesOn(LinkClass::kNic, 0, false), 10);
}

// The port into rank 1 takes 10 ns for a byte.
TEST_F(PortRoutesTest, ADegradedLink) {
  BuildFrom(R"(gpus_per_node: 4 nvlink { bandwidth: "1 GB/s" latency: "5 ns" })",
            R"(link { name: "nvlink 1 in" bandwidth: "100 MB/s" })");
  EXPECT_THAT(FinishOf(Matrix({{0, 1, 10}, {2, 3, 10}})), ElementsAre(105'000, 105'000, 15'000, 15'000));
}

class PortDeathTest : public PortTest {};

TEST_F(PortDeathTest, BrokenContracts) {
  RunUntil(100);
  EXPECT_DEATH(Start(0, {}, {100, 99, 100, 100}), "release");
  EXPECT_DEATH(Start(0, {}, {100, 100, 100}), "release.size");
  EXPECT_DEATH(Start(0, {{0, 1, -1}}, {100, 100, 100, 100}), "bits");
  TrafficMatrix small{3, std::vector<int64_t>(9)};
  EXPECT_DEATH(network_->Start(StreamId(0), small, Times({100, 100, 100, 100}), {}), "traffic.ranks");
  const PhaseId phase = Start(0, {}, {100, 100, 100, 100});
  EXPECT_DEATH(network_->Revise(phase, Times({99, 100, 100, 100})), "release");
  RunUntil(6'000);
  EXPECT_DEATH(network_->Revise(phase, Times({100, 100, 100, 100})), "reported");
}

TEST(NewNetworkTest, AModelHasToBeChosen) {
  const auto platform = FindPlatform("h100-sxm");
  ASSERT_TRUE(platform.ok());
  const auto cluster = Cluster::Create(*platform, 8);
  ASSERT_TRUE(cluster.ok());
  EventQueue queue;
  const auto network = NewNetwork(NetworkConfig(), *cluster, &queue);
  EXPECT_EQ(network.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(network.status().message()), HasSubstr("network: no model is chosen"));
}

}  // namespace
}  // namespace epsim
