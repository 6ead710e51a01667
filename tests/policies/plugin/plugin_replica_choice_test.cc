// A replica choice by a library: what the library is given, what becomes of its answer, and what is said of a wrong
// one.
#include "policies/plugin/plugin_replica_choice.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using testing::ElementsAre;

std::string PathOf(const std::string& name) { return std::string(EPSIM_PLUGINS) + "/lib" + name + ".so"; }

absl::StatusOr<std::unique_ptr<ReplicaChoice>> New(const std::string& name, const std::string& options) {
  ReplicaChoiceConfig config;
  config.mutable_plugin()->set_library(PathOf(name));
  config.mutable_plugin()->set_options(options);
  return NewReplicaChoice(config);
}

// Two ranks on each of two nodes.  In layer 0 expert 0 lies on ranks 0, 1 and 3, expert 1 on ranks 0, 1 and 2, expert 2
// on rank 2; rank 3 has lost a slot.
const PlacementShape kShape{.layers = 2, .experts = 3, .slots = 8, .ranks = 4, .nodes = 2};
Placement SomePlacement() {
  std::vector<LogicalExpert> experts;
  for (const int expert : {0, 1, 1, 0, 2, 1, 0, -1, 0, 1, 2, 0, 1, 2, 0, 1}) experts.push_back(LogicalExpert(expert));
  return Placement(kShape, std::move(experts));
}

// Without "plugin LIBRARY: replica choice: ".
std::string Said(const absl::Status& status, const std::string& name = "faulty_plugin") {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const std::string begin = absl::StrCat("plugin ", PathOf(name), ": replica choice: ");
  EXPECT_EQ(status.message().substr(0, begin.size()), begin);
  return std::string(status.message().substr(std::min(status.message().size(), begin.size())));
}

// What is said when both layers have been chosen in a faulty way.
std::string ErrorOf(const std::string& fault) {
  const std::unique_ptr<ReplicaChoice> choice = New("faulty_plugin", fault).value();
  RandomStream random(7, "replica_choice");
  const Placement placement = SomePlacement();
  const ReplicaTable table = choice->fixed()->Choose(placement, &random);
  // A table to go on with until somebody asks.
  for (int layer = 0; layer < kShape.layers; ++layer) {
    for (int rank = 0; rank < kShape.ranks; ++rank) {
      for (int expert = 0; expert < kShape.experts; ++expert) {
        EXPECT_EQ(placement.experts_of_slots(Layer(layer))[table.of(Layer(layer), Rank(rank))[expert]],
                  LogicalExpert(expert));
      }
    }
  }
  return Said(choice->status());
}

// Near first; of several the (rank mod n)-th.  Rank 2 finds expert 0 on its node, on rank 3; rank 3 finds expert 1 on
// rank 2.  Expert 2 is on rank 2 alone.
TEST(PluginReplicaChoice, IsWhatTheLibrarySays) {
  const std::unique_ptr<ReplicaChoice> choice = New("example_plugin", "").value();
  ASSERT_NE(choice->fixed(), nullptr);
  RandomStream random(7, "replica_choice");
  const ReplicaTable table = choice->fixed()->Choose(SomePlacement(), &random);
  EXPECT_EQ(choice->status(), absl::OkStatus());
  EXPECT_THAT(table.of(Layer{0}, Rank{0}), ElementsAre(0, 1, 4));
  EXPECT_THAT(table.of(Layer{0}, Rank{1}), ElementsAre(3, 2, 4));
  EXPECT_THAT(table.of(Layer{0}, Rank{2}), ElementsAre(6, 5, 4));
  EXPECT_THAT(table.of(Layer{0}, Rank{3}), ElementsAre(6, 5, 4));
}

TEST(PluginReplicaChoice, GivesTheLibraryAllOfTheRequest) {
  const uint64_t seed = RandomStream(7, "replica_choice").Next();
  EXPECT_EQ(ErrorOf("choose: tells"),
            absl::StrCat("2 layers 3 experts 8 slots 4 ranks 2 nodes 1 groups layer 0 seed ", seed,
                         " phy2log [0 1 1 0 2 1 0 -1] first [0 3 6 7] replicas [0 3 6 1 2 5 4]"
                         " slots [-1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1 -1]"));
}

TEST(PluginReplicaChoice, RefusesSlotsThatDoNotHoldTheExpert) {
  EXPECT_EQ(ErrorOf("choose: too large"), "layer 0, source rank 3, expert 1: slot 8 is none of 0 to 7");
  EXPECT_EQ(ErrorOf("choose: negative"), "layer 0, source rank 3, expert 1: slot -2 is none of 0 to 7");
  EXPECT_EQ(ErrorOf("choose: left empty"), "layer 0, source rank 3, expert 1: no slot is chosen");
  EXPECT_EQ(ErrorOf("choose: other expert"), "layer 0, source rank 3, expert 1: slot 0 holds expert 0");
  EXPECT_EQ(ErrorOf("choose: lost slot"), "layer 0, source rank 3, expert 1: slot 7 holds no expert");
}

TEST(PluginReplicaChoice, PassesOnWhatTheLibrarySays) {
  EXPECT_EQ(ErrorOf("choose: fails"), "no slot will do");
  EXPECT_EQ(Said(New("faulty_plugin", "create: fails").status()), "options: \"create: fails\" is no fault");
  EXPECT_EQ(Said(New("example_plugin", "near").status(), "example_plugin"),
            "options: \"near\" is not understood; there are none");
}

TEST(PluginReplicaChoice, NeedsTheRoleAndItsCalls) {
  EXPECT_EQ(Said(New("no_roles_plugin", "").status(), "no_roles_plugin"), "the library has none");
  EXPECT_EQ(Said(New("no_calls_plugin", "").status(), "no_calls_plugin"), "create, destroy or choose is null");
  EXPECT_EQ(NewPluginReplicaChoice(Plugin()).status(), absl::InvalidArgumentError("plugin: library: none named"));
}

}  // namespace
}  // namespace epsim
