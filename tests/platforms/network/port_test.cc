// Links of 1 byte per nanosecond inside a node (routes of 5 ns) and 1 byte per 2 ns between nodes (routes of 7 ns).
#include "platforms/network/port.h"

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

// 30 B through the receiver's link, whoever they are from.
TEST_F(PortTest, TwoSendersToOneReceiver) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(15'000, 25'000, 35'000, 5'000));
}

TEST_F(PortTest, OneSenderToTwoReceivers) {
  const PhaseId phase = Start(0, {{0, 1, 10}, {0, 2, 20}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(35'000, 15'000, 25'000, 5'000));
}

// Rank 1 comes at 50 ns, when rank 0's bytes are long through: the receiver's link is busy 0-10 and 50-70.
TEST_F(PortTest, StaggeredReleasesLeaveTheLinkIdle) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 50'000, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(55'000, 75'000, 75'000, 55'000));
}

// Rank 1 comes at 4 ns and queues behind rank 0 until 10.
TEST_F(PortTest, StaggeredReleasesQueue) {
  const PhaseId phase = Start(0, {{0, 2, 10}, {1, 2, 20}}, {0, 4'000, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(15'000, 29'000, 35'000, 9'000));
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

// One byte at 3 B/ns is a third of a nanosecond: rounded up once, after the sum of three.
TEST_F(PortTest, TimesAreRoundedUpOnce) {
  PlatformSpec platform = cluster_->platform();
  platform.mutable_nvlink()->set_bandwidth("3 GB/s");
  auto cluster = Cluster::Create(platform, 4);
  ASSERT_TRUE(cluster.ok());
  network_ = NewPortNetwork({}, *cluster, queue_.get());
  const PhaseId phase = Start(0, {{0, 3, 1}, {1, 3, 1}, {2, 3, 1}}, {0, 0, 0, 0});
  RunAll();
  EXPECT_THAT(Finish(phase), ElementsAre(5'334, 5'334, 5'334, 6'000));
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
  // until 10.
  EXPECT_THAT(Finish(a), ElementsAre(25'000, 19'000, 5'000, 5'000));
  EXPECT_THAT(Finish(b), ElementsAre(25'000, 5'000, 15'000, 5'000));
  EXPECT_THAT(Finish(c), ElementsAre(5'000, 13'000, 5'000, 9'000));
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
    return std::vector<int64_t>{network_->bytes_on_link()[Index(route.links[0])],
                                network_->bytes_on_link()[Index(route.links[1])]};
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
// gives. (Within a picosecond for each phase: a lone phase's end is rounded before the next of its stream begins.)
TEST_F(PortTest, InstalmentsAgreeWithTheWholeFluid) {
  RandomStream random(1, "port_test");
  for (int round = 0; round < 60; ++round) {
    const int per_node = round % 2 == 0 ? 2 : 4;
    Build(4, per_node);
    struct Known {
      PhaseId id;
      int stream;
      TrafficMatrix traffic;
      std::vector<int64_t> release;
    };
    std::vector<Known> phases;
    int64_t now = 0;
    while (phases.size() < 12) {
      now += static_cast<int64_t>(random.Below(3)) * static_cast<int64_t>(random.Below(40'000));
      RunUntil(now);
      for (Known& known : phases) {
        // Until it is told, releases that are to come may move.
        if (!told_[known.id].empty() || random.Below(2) == 0) continue;
        for (int64_t& t : known.release) {
          if (t >= now && random.Below(2) == 0) t = now + static_cast<int64_t>(random.Below(60'000));
        }
        network_->Revise(known.id, Times(known.release));
      }
      Known known{PhaseId(0), static_cast<int>(random.Below(3)), Matrix({}), {}};
      for (int64_t& bytes : known.traffic.bytes)
        bytes = random.Below(3) == 0 ? 0 : static_cast<int64_t>(random.Below(30));
      for (int rank = 0; rank < 4; ++rank) {
        known.release.push_back(now +
                                static_cast<int64_t>(random.Below(2)) * static_cast<int64_t>(random.Below(60'000)));
      }
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
      const int owner = static_cast<int>(spec.owner);
      const int64_t per_byte = spec.link_class == LinkClass::kNic ? 2'000 : 1'000;
      const int64_t latency = spec.link_class == LinkClass::kNic ? 7'000 : 5'000;
      SharedLink fluid;
      fluid.Begin(At(0));
      for (const Known& known : phases) {
        std::multimap<int64_t, int64_t> offers;
        for (int other = 0; other < 4; ++other) {
          const int s = spec.outgoing ? owner : other, d = spec.outgoing ? other : owner;
          const bool same_node = s / per_node == d / per_node;
          if (s == d || same_node != (spec.link_class == LinkClass::kNvlink)) continue;
          const int64_t bytes = known.traffic.bytes[s * 4 + d];
          if (bytes > 0) offers.emplace(known.release[s], bytes);
        }
        std::vector<OfferedWork> work;
        for (auto [time, bytes] : offers) work.push_back({At(time), static_cast<double>(bytes * per_byte)});
        if (!work.empty()) fluid.Add(known.id, StreamId(known.stream), SimTime{}, work);
      }
      fluid.Solve([&](PhaseId phase, SimTime finish) {
        int64_t& expect = expected[phase][owner];
        expect = std::max(expect, finish.time_since_epoch().count() + latency);
      });
    }
    for (const Known& known : phases) {
      for (int rank = 0; rank < 4; ++rank) {
        EXPECT_NEAR(Finish(known.id)[rank], expected[known.id][rank], 12)
            << "round " << round << " phase " << static_cast<int>(known.id) << " rank " << rank;
      }
    }
  }
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
