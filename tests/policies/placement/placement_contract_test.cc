// Does every placement policy keep the promise of placement_policy.h?  Run over every alternative of the oneof: a new
// policy is covered the day it is declared.
#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/placement/placement_policy.h"

namespace epsim {
namespace {

using testing::HasSubstr;

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  const auto* policies = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  for (int i = 0; i < policies->field_count(); ++i) names.push_back(policies->field(i)->name());
  return names;
}

// Shapes of public deployments and odd ones.
const PlacementShape kShapes[] = {
    {.layers = 2, .experts = 12, .slots = 16, .ranks = 8, .nodes = 2, .expert_groups = 4},
    {.layers = 3, .experts = 32, .slots = 32, .ranks = 8},
    {.layers = 1, .experts = 32, .slots = 32, .ranks = 32, .nodes = 4},
    {.layers = 2, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8},
    {.layers = 2, .experts = 256, .slots = 288, .ranks = 144, .nodes = 2},
    {.layers = 1, .experts = 5, .slots = 21, .ranks = 7},
    {.layers = 1, .experts = 1, .slots = 1, .ranks = 1},
    {.layers = 1, .experts = 3, .slots = 9, .ranks = 1},
};

class PlacementContract : public testing::TestWithParam<std::string> {
 protected:
  absl::StatusOr<std::unique_ptr<PlacementPolicy>> New(const PlacementShape& shape) {
    PlacementPolicyConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    if (config.has_plugin()) config.mutable_plugin()->set_library(EPSIM_EXAMPLE_PLUGIN);
    return NewPlacementPolicy(config, shape);
  }

  // The placements that a new policy makes of windows of `rows` steps, each planned on the previous one.
  std::vector<Placement> PlaceInTurn(const PlacementShape& shape, int rows, int64_t scale) {
    RandomStream loads(7, "loads"), random(7, "placement");
    const std::unique_ptr<PlacementPolicy> policy = New(shape).value();
    std::vector<Placement> placements;
    for (int turn = 0; turn < 3; ++turn) {
      std::vector<double> tokens(static_cast<size_t>(rows) * shape.layers * shape.experts);
      for (double& count : tokens) count = static_cast<double>((loads.Below(1 << 20) >> loads.Below(20)) * scale);
      PlacementRequest request;
      request.window = {.rows = rows, .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
      request.previous = placements.empty() ? nullptr : &placements.back();
      request.random = &random;
      Placement placement = policy->Place(request).value();
      placements.push_back(std::move(placement));
    }
    return placements;
  }
};

TEST_P(PlacementContract, GivesEveryExpertASlotInEveryLayer) {
  for (const PlacementShape& shape : kShapes) {
    for (int rows : {1, 5}) {
      for (const Placement& placement : PlaceInTurn(shape, rows, 1)) {
        for (int layer = 0; layer < shape.layers; ++layer) {
          const absl::Span<const LogicalExpert> experts = placement.experts_of_slots(Layer(layer));
          ASSERT_EQ(experts.size(), static_cast<size_t>(shape.slots));
          size_t replicas = 0;
          for (int expert = 0; expert < shape.experts; ++expert) {
            const absl::Span<const Slot> slots = placement.replicas(Layer(layer), LogicalExpert(expert));
            ASSERT_FALSE(slots.empty()) << "expert " << expert;
            replicas += slots.size();
            for (Slot slot : slots) ASSERT_EQ(experts[Index(slot)], LogicalExpert(expert));
          }
          ASSERT_EQ(replicas, experts.size());  // With the line above: every slot is listed once.
        }
      }
    }
  }
}

TEST_P(PlacementContract, EqualRequestsGiveEqualPlacements) {
  for (const PlacementShape& shape : kShapes) {
    ASSERT_TRUE(PlaceInTurn(shape, 4, 1) == PlaceInTurn(shape, 4, 1)) << shape.experts << " experts";
  }
}

// Only the proportions of the load matter.  A power of two scales every float32 quotient and sum exactly.
TEST_P(PlacementContract, ScalingTheLoadChangesNothing) {
  for (const PlacementShape& shape : kShapes) {
    ASSERT_TRUE(PlaceInTurn(shape, 4, 1) == PlaceInTurn(shape, 4, 1 << 12)) << shape.experts << " experts";
  }
}

TEST_P(PlacementContract, RefusesShapesItCannotServeAndSaysWhatWouldFit) {
  const PlacementShape good{.layers = 2, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8};
  ASSERT_TRUE(New(good).ok());
  const auto message = [&](auto change) {
    PlacementShape shape = good;
    change(shape);
    const absl::Status status = New(shape).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(message([](auto& s) { s.slots = 290; }),
              HasSubstr("slots: 290 are not divisible by 32 ranks; 288 or 320 would fit"));
  EXPECT_THAT(message([](auto& s) { s.slots = 257; }),
              HasSubstr("slots: 257 are not divisible by 32 ranks; 256 or 288 would fit"));
  EXPECT_THAT(message([](auto& s) { s.slots = 257, s.experts = 257; }),
              HasSubstr("slots: 257 are not divisible by 32 ranks; 288 would fit"));
  EXPECT_THAT(message([](auto& s) { s.slots = 224; }),
              HasSubstr("slots: 224 are fewer than 256 experts; 256 or more would fit on 32 ranks"));
  EXPECT_THAT(message([](auto& s) { s.slots = 65536 + 32; }), HasSubstr("slots: 65568 is more than 65536"));
  EXPECT_THAT(message([](auto& s) { s.layers = 0; }), HasSubstr("layers: 0 is not positive"));
  EXPECT_THAT(message([](auto& s) { s.experts = -1; }), HasSubstr("experts: -1 is not positive"));
  EXPECT_THAT(message([](auto& s) { s.slots = 0; }), HasSubstr("slots: 0 is not positive"));
  EXPECT_THAT(message([](auto& s) { s.ranks = 0; }), HasSubstr("ranks: 0 is not positive"));
  EXPECT_THAT(message([](auto& s) { s.nodes = 0; }), HasSubstr("nodes: 0 is not positive"));
  EXPECT_THAT(message([](auto& s) { s.expert_groups = 0; }), HasSubstr("expert_groups: 0 is not positive"));
}

// Layers that are not asked for stay as they are.
TEST_P(PlacementContract, PlacesTheLayersAskedFor) {
  for (const PlacementShape& shape : kShapes) {
    if (shape.layers < 2) continue;
    const Placement previous = PlaceInTurn(shape, 1, 1)[0];
    RandomStream random(7, "placement");
    std::vector<double> tokens(static_cast<size_t>(shape.layers) * shape.experts);
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<double>(i * i % 97);
    const Layer asked[] = {Layer{1}};
    PlacementRequest request;
    request.window = {.rows = 1, .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
    request.previous = &previous;
    request.layers = asked;
    request.random = &random;
    const Placement placement = New(shape).value()->Place(request).value();
    for (int layer = 0; layer < shape.layers; ++layer) {
      if (layer == 1) continue;
      EXPECT_EQ(placement.experts_of_slots(Layer(layer)), previous.experts_of_slots(Layer(layer)));
      for (int expert = 0; expert < shape.experts; ++expert) {
        EXPECT_EQ(placement.replicas(Layer(layer), LogicalExpert(expert)),
                  previous.replicas(Layer(layer), LogicalExpert(expert)));
      }
    }
  }
}

// A policy that names the layers it changed names all of them and no others, each once.
TEST_P(PlacementContract, NamesTheLayersItChangedOrNone) {
  PlacementShape shape = kShapes[3];
  shape.layers = 6;
  RandomStream loads(7, "loads"), random(7, "placement");
  const std::unique_ptr<PlacementPolicy> policy = New(shape).value();
  std::optional<Placement> previous;
  for (int turn = 0; turn < 4; ++turn) {
    std::vector<double> tokens(static_cast<size_t>(shape.layers) * shape.experts, 5);  // Two layers are in balance.
    for (size_t i = 2 * shape.experts; i < tokens.size(); ++i) tokens[i] = static_cast<double>(loads.Below(1000));
    PlacementRequest request;
    request.window = {.rows = 1, .layers = shape.layers, .experts = shape.experts, .tokens = tokens};
    request.previous = previous.has_value() ? &*previous : nullptr;
    request.random = &random;
    Placement placement = policy->Place(request).value();
    const std::vector<Layer> named = policy->change_order();
    if (previous.has_value() && !named.empty()) {
      std::vector<Layer> changed;
      for (int layer = 0; layer < shape.layers; ++layer) {
        if (placement.experts_of_slots(Layer(layer)) != previous->experts_of_slots(Layer(layer))) {
          changed.push_back(Layer(layer));
        }
      }
      EXPECT_THAT(named, testing::UnorderedElementsAreArray(changed)) << "turn " << turn;
    }
    previous = std::move(placement);
  }
}

TEST_P(PlacementContract, RefusesLoadsThatAreNone) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 3, .ranks = 1};
  RandomStream random(7, "placement");
  const auto message = [&](std::vector<double> tokens) {
    PlacementRequest request;
    request.window = {.rows = static_cast<int>(tokens.size()) / 3, .layers = 1, .experts = 3, .tokens = tokens};
    request.random = &random;
    return std::string(New(shape).value()->Place(request).status().message());
  };
  EXPECT_EQ(message({1, 2, 3}), "");
  EXPECT_THAT(message({1, NAN, 3}), HasSubstr("load of layer 0, expert 1: nan is not a finite number"));
  EXPECT_THAT(message({1, 2, 3, 1, 2, -0.5}), HasSubstr("load of layer 0, expert 2, row 1: -0.5 is negative"));
  EXPECT_THAT(message({1, 2, 1e39}), HasSubstr("expert 2: 1e+39 is more than a float32 can hold"));
  EXPECT_THAT(message({1, 2, 3e38, 1, 2, 3e38}), HasSubstr("total load of layer 0, expert 2: 6e+38 is more than"));
  PlacementPolicyConfig config;
  config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
  if (GoesByLoad(config)) {
    EXPECT_THAT(message({}), HasSubstr("the window is empty"));
  }
}

INSTANTIATE_TEST_SUITE_P(EveryPolicy, PlacementContract, testing::ValuesIn(PolicyNames()),
                         [](const auto& info) { return info.param; });

TEST(NewPlacementPolicy, NeedsAPolicy) {
  const PlacementShape shape{.layers = 1, .experts = 1, .slots = 1, .ranks = 1};
  EXPECT_EQ(NewPlacementPolicy(PlacementPolicyConfig(), shape).status(),
            absl::InvalidArgumentError("placement: no policy is chosen"));
}

// Slot s holds expert s mod E.
TEST(ContiguousPlacement, RepeatsTheFirstExperts) {
  const PlacementShape shape{.layers = 2, .experts = 4, .slots = 6, .ranks = 2};
  PlacementPolicyConfig config;
  config.mutable_contiguous();
  RandomStream random(1, "placement");
  const std::vector<double> tokens = {0, 0, 0, 9, 9, 0, 0, 0};
  PlacementRequest request;
  request.window = {.rows = 1, .layers = 2, .experts = 4, .tokens = tokens};
  request.random = &random;
  const Placement placement = NewPlacementPolicy(config, shape).value()->Place(request).value();
  for (Layer layer : {Layer{0}, Layer{1}}) {
    EXPECT_THAT(placement.experts_of_slots(layer),
                testing::ElementsAre(LogicalExpert{0}, LogicalExpert{1}, LogicalExpert{2}, LogicalExpert{3},
                                     LogicalExpert{0}, LogicalExpert{1}));
    EXPECT_THAT(placement.replicas(layer, LogicalExpert{1}), testing::ElementsAre(Slot{1}, Slot{5}));
  }
}

}  // namespace
}  // namespace epsim
