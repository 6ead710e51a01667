// Does every replica choice keep the promise of replica_choice.h?  Run over every alternative of the oneof.
#include <algorithm>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/placement/eplb_placement.h"
#include "policies/replica/replica_choice.h"

namespace epsim {
namespace {

std::vector<std::string> ChoiceNames() {
  std::vector<std::string> names;
  const auto* choices = ReplicaChoiceConfig::descriptor()->FindOneofByName("choice");
  for (int i = 0; i < choices->field_count(); ++i) names.push_back(choices->field(i)->name());
  return names;
}

// EPLB placements of skewed random loads.
std::vector<Placement> Placements() {
  std::vector<Placement> placements;
  RandomStream random(3, "loads");
  for (const PlacementShape& shape :
       {PlacementShape{.layers = 3, .experts = 64, .slots = 96, .ranks = 16, .nodes = 4, .expert_groups = 8},
        PlacementShape{.layers = 2, .experts = 8, .slots = 64, .ranks = 32, .nodes = 2},
        PlacementShape{.layers = 2, .experts = 32, .slots = 32, .ranks = 8},
        PlacementShape{.layers = 1, .experts = 1, .slots = 1, .ranks = 1}}) {
    std::vector<float> weight(shape.layers * shape.experts);
    for (float& load : weight) load = static_cast<float>(1 / (0.01 + random.Unit()));
    placements.push_back(Eplb(weight, shape, EplbPlacement::AUTO));
  }
  return placements;
}

class ReplicaChoiceContract : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<ReplicaChoice> New() {
    ReplicaChoiceConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    return NewReplicaChoice(config).value();
  }
};

TEST_P(ReplicaChoiceContract, EveryEntryIsAReplicaOfItsExpert) {
  for (const Placement& placement : Placements()) {
    const PlacementShape& shape = placement.shape();
    RandomStream random(1, "replica");
    const ReplicaTable table = New()->Choose(placement, &random);
    ASSERT_EQ(table.layers, shape.layers);
    ASSERT_EQ(table.ranks, shape.ranks);
    ASSERT_EQ(table.experts, shape.experts);
    ASSERT_EQ(table.slot.size(), static_cast<size_t>(shape.layers) * shape.ranks * shape.experts);
    for (int layer = 0; layer < shape.layers; ++layer) {
      for (int rank = 0; rank < shape.ranks; ++rank) {
        const absl::Span<const uint16_t> slots = table.of(Layer(layer), Rank(rank));
        for (int expert = 0; expert < shape.experts; ++expert) {
          ASSERT_LT(slots[expert], shape.slots);
          ASSERT_EQ(placement.experts_of_slots(Layer(layer))[slots[expert]], LogicalExpert(expert));
        }
      }
    }
  }
}

TEST_P(ReplicaChoiceContract, EqualStreamsGiveEqualTables) {
  const std::unique_ptr<ReplicaChoice> choice = New();
  for (const Placement& placement : Placements()) {
    RandomStream a(1, "replica"), b(1, "replica");
    EXPECT_EQ(New()->Choose(placement, &a).slot, choice->Choose(placement, &b).slot);  // Nothing left from before.
    EXPECT_EQ(a.Next(), b.Next());
  }
}

INSTANTIATE_TEST_SUITE_P(EveryChoice, ReplicaChoiceContract, testing::ValuesIn(ChoiceNames()),
                         [](const auto& info) { return info.param; });

TEST(NewReplicaChoice, NeedsAChoice) {
  EXPECT_EQ(NewReplicaChoice(ReplicaChoiceConfig()).status(), absl::InvalidArgumentError("replica: no choice is made"));
}

}  // namespace
}  // namespace epsim
