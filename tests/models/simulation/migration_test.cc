// What moves of weights put on links and memory, added up by hand.
#include "models/simulation/migration.h"

#include "engine/text_proto.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using namespace std::chrono_literals;

// Two slots a rank, two ranks a node.
constexpr PlacementShape kShape{.layers = 1, .experts = 8, .slots = 8, .ranks = 4, .nodes = 2};

SlotMove Move(int slot, MoveWay way, int source = -1) {
  return {
      .slot = Slot(slot), .expert = LogicalExpert(0), .way = way, .source = Slot(source), .staged = {}, .stager = {}};
}

// One move of each way: within rank 0, from rank 0 to rank 1, from rank 0 to rank 2, from host to rank 2.
const std::vector<SlotMove> kMoves = {Move(0, MoveWay::kGpu, 1), Move(2, MoveWay::kNode, 0),
                                      Move(4, MoveWay::kNetwork, 1), Move(5, MoveWay::kHost)};

TEST(MigrationTest, NothingMovesAtFirst) {
  MigrationConfig config;
  config.set_link_efficiency(0.5);
  config.set_network_efficiency(0.25);
  const Migration migration = NewMigration(4, config);
  EXPECT_EQ(migration.traffic.ranks, 4);
  EXPECT_EQ(migration.traffic.efficiency.node, 0.5);
  EXPECT_EQ(migration.traffic.efficiency.network, 0.25);
  EXPECT_EQ(migration.traffic.bytes, std::vector<int64_t>(16, 0));
  EXPECT_TRUE(migration.traffic.from_host.empty());
  EXPECT_FALSE(migration.travels());
  EXPECT_EQ(CopyTime(migration, BytesPerSecond(1)), Duration{});
}

TEST(MigrationTest, EachMoveIsOneExpertOnItsWay) {
  Migration migration = NewMigration(4, {});
  AddMoves(kMoves, kShape, Bytes(1000), false, &migration);
  EXPECT_EQ(migration.slots, 4);
  EXPECT_THAT(migration.bytes, ElementsAre(1000, 1000, 1000, 1000));
  EXPECT_THAT(migration.traffic.bytes, ElementsAre(0, 1000, 1000, 0,  //
                                                   0, 0, 0, 0,        //
                                                   0, 0, 0, 0,        //
                                                   0, 0, 0, 0));
  EXPECT_THAT(migration.traffic.from_host, ElementsAre(0, 0, 1000, 0));
  // What lands in its slot at once is not copied again.
  EXPECT_THAT(migration.copied, ElementsAre(1000, 0, 0, 0));
  EXPECT_TRUE(migration.travels());
  AddMoves(kMoves, kShape, Bytes(10), false, &migration);
  EXPECT_EQ(migration.slots, 8);
  EXPECT_THAT(migration.bytes, ElementsAre(1010, 1010, 1010, 1010));
  EXPECT_EQ(migration.traffic.bytes[1], 1010);
  EXPECT_THAT(migration.traffic.from_host, ElementsAre(0, 0, 1010, 0));
}

// The slowest GPU, rank 2, copies two experts of 1000 bytes, each read and written: 4000 bytes at 1 GB/s.
TEST(MigrationTest, WhatArrivesInABufferIsCopiedOnceMore) {
  Migration migration = NewMigration(4, {});
  AddMoves(kMoves, kShape, Bytes(1000), true, &migration);
  EXPECT_THAT(migration.copied, ElementsAre(1000, 1000, 2000, 0));
  EXPECT_EQ(CopyTime(migration, BytesPerSecond(1'000'000'000)), Duration(4us));
}

TEST(MigrationTest, CopiesWithinAGpuDoNotTravel) {
  Migration migration = NewMigration(4, {});
  AddMoves({kMoves[0]}, kShape, Bytes(1000), false, &migration);
  EXPECT_FALSE(migration.travels());
  EXPECT_EQ(CopyTime(migration, BytesPerSecond(1'000'000'000)), Duration(2us));
  for (size_t way = 1; way < kMoves.size(); ++way) {
    Migration other = NewMigration(4, {});
    AddMoves({kMoves[way]}, kShape, Bytes(1000), false, &other);
    EXPECT_TRUE(other.travels());
  }
}

}  // namespace
}  // namespace epsim
