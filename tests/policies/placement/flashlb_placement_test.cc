#include "policies/placement/flashlb_placement.h"

#include <cmath>
#include <memory>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/policies/placement/plan_once.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

std::unique_ptr<PlacementPolicy> New(const PlacementShape& shape, const FlashlbPlacement& config = {}) {
  return NewFlashlbPlacement(config, shape).value();
}

constexpr PlacementShape kPairs{.layers = 1, .experts = 4, .slots = 4, .ranks = 2};

// Loads 9 7 2 2 on two ranks of two: 16 and 4.  Dealt 0 3 and 1 2, 11 and 9.  Two moves, whichever rank has which.
TEST(Flashlb, StartsAsAServerDoes) {
  EXPECT_THAT(Phy2Log(Place(New(kPairs).get(), kPairs, {9, 7, 2, 2}, nullptr)), ElementsAre(0, 3, 2, 1));
}

// Loads 9 7 2 2 1 1 on two ranks of three, 18 and 4.  9 -> 0, 7 -> 1, 2 -> 1, 2 -> 0 (11 = 11), 1 -> 1, 1 -> 0: rows 0
// 3 5 and 1 2 4.  As dealt, 4 experts move; the other way round, only 4 and 0, which change places.
TEST(Flashlb, MovesAsLittleAsThePlanAllows) {
  const PlacementShape shape{.layers = 1, .experts = 6, .slots = 6, .ranks = 2};
  const Placement previous = Make(shape, {1, 2, 0, 4, 3, 5});
  EXPECT_THAT(Phy2Log(Place(New(shape).get(), shape, {9, 7, 2, 2, 1, 1}, &previous)), ElementsAre(1, 2, 4, 0, 3, 5));
}

// Planned at 11 and 9, which promises 10 / 11 = 0.909.  On fewer than 32 ranks a layer is planned again below 0.95 of
// that, 0.864, or below 0.9.  Loads 10 7 2 2: 12 and 9, 10.5 / 12 = 0.875; the best plan is what there is.  Loads 5 4 4
// 4: 9 and 8, 0.944: left.  Loads 8 2 2 8: 16 and 4; dealt 0 1 and 3 2.
TEST(Flashlb, PlansALayerAgainWhereItsBalanceIsLost) {
  FlashlbPlacement config;
  config.set_max_observation_window(1);
  const std::unique_ptr<PlacementPolicy> policy = New(kPairs, config);
  const Placement first = Place(policy.get(), kPairs, {9, 7, 2, 2}, nullptr);
  EXPECT_THAT(policy->change_order(), ElementsAre(Layer{0}));
  EXPECT_TRUE(Place(policy.get(), kPairs, {10, 7, 2, 2}, &first) == first);
  EXPECT_TRUE(Place(policy.get(), kPairs, {5, 4, 4, 4}, &first) == first);
  EXPECT_THAT(policy->change_order(), IsEmpty());
  EXPECT_THAT(Phy2Log(Place(policy.get(), kPairs, {8, 2, 2, 8}, &first)), ElementsAre(0, 1, 2, 3));
}

// 6 6 4 4 is dealt 0 2 and 1 3, 10 and 10: a promise of 1.  Then 6 4 6 4 makes them 12 and 8, 20.01 / 24.01 = 0.833,
// where 0 1 and 2 3 would be in balance.
TEST(Flashlb, AsksForAShareOfThePromiseOrForAValue) {
  FlashlbPlacement config;
  config.set_max_observation_window(1);
  config.set_update_threshold_ratio(0);
  config.set_update_threshold_value(0);
  const Placement start = Make(kPairs, {0, 1, 2, 3});
  const auto second = [&](const FlashlbPlacement& with) {
    const std::unique_ptr<PlacementPolicy> policy = New(kPairs, with);
    const Placement first = Place(policy.get(), kPairs, {6, 6, 4, 4}, &start);
    EXPECT_THAT(Phy2Log(first), ElementsAre(0, 2, 1, 3));
    return Place(policy.get(), kPairs, {6, 4, 6, 4}, &first) == first;
  };
  EXPECT_TRUE(second(config));             // Never again.
  config.set_update_threshold_ratio(0.8);  // 0.833 is not below 0.8 of 1,
  EXPECT_TRUE(second(config));
  config.set_update_threshold_ratio(0.85);  // but below 0.85.
  EXPECT_FALSE(second(config));
  config.set_update_threshold_ratio(0);
  config.set_update_threshold_value(0.8);
  EXPECT_TRUE(second(config));
  config.set_update_threshold_value(0.85);
  EXPECT_FALSE(second(config));
}

TEST(Flashlb, DefaultsDependOnTheSizeOfTheWorld) {
  PlacementShape shape{.layers = 1, .experts = 32, .slots = 31, .ranks = 31};
  FlashlbPlacement complete = CompleteFlashlbPlacement({}, shape).value();
  EXPECT_EQ(complete.update_threshold_ratio(), 0.95);
  EXPECT_EQ(complete.update_threshold_value(), 0.9);
  shape.ranks = shape.slots = 32;
  complete = CompleteFlashlbPlacement({}, shape).value();
  EXPECT_EQ(complete.update_threshold_ratio(), 0.9);
  EXPECT_EQ(complete.update_threshold_value(), 0.85);
  EXPECT_EQ(complete.z_score(), 0.674);
  EXPECT_EQ(complete.tree_depth(), 4);
  EXPECT_EQ(complete.tree_width(), 8);
  EXPECT_EQ(complete.sample_size(), 64);
  EXPECT_EQ(complete.max_observation_window(), 2000);
}

// Thresholds of 1 plan every request anew, so that what it does shows what it has seen.
FlashlbPlacement AlwaysPlan() {
  FlashlbPlacement config;
  config.set_update_threshold_ratio(1);
  config.set_update_threshold_value(1);
  return config;
}

constexpr PlacementShape kShape{.layers = 2, .experts = 12, .slots = 16, .ranks = 4};

// [rows, layers, experts]
std::vector<double> Loads(int rows, const char* stream) {
  RandomStream random(1, stream);
  std::vector<double> tokens(rows * kShape.layers * kShape.experts);
  for (double& count : tokens) count = static_cast<double>(random.Below(1000) >> random.Below(6));
  return tokens;
}

std::vector<double> Rows(const std::vector<double>& tokens, int begin, int end) {
  const int row = kShape.layers * kShape.experts;
  return {tokens.begin() + begin * row, tokens.begin() + end * row};
}

TEST(Flashlb, KeepsItsSamplesFromOneRequestToTheNext) {
  const Placement start = Make(kShape, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3,  //
                                        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0, 1, 2, 3});
  const std::vector<double> loads = Loads(6, "KeepsItsSamples");
  const Placement at_once = Place(New(kShape, AlwaysPlan()).get(), kShape, loads, &start);
  const Placement latest = Place(New(kShape, AlwaysPlan()).get(), kShape, Rows(loads, 4, 6), &start);
  ASSERT_FALSE(at_once == latest);

  const std::unique_ptr<PlacementPolicy> in_turn = New(kShape, AlwaysPlan());
  Place(in_turn.get(), kShape, Rows(loads, 0, 4), &start);
  EXPECT_TRUE(Place(in_turn.get(), kShape, Rows(loads, 4, 6), &start) == at_once);

  FlashlbPlacement forgetful = AlwaysPlan();
  forgetful.set_max_observation_window(2);
  const std::unique_ptr<PlacementPolicy> policy = New(kShape, forgetful);
  Place(policy.get(), kShape, Rows(loads, 0, 4), &start);
  EXPECT_TRUE(Place(policy.get(), kShape, Rows(loads, 4, 6), &start) == latest);

  // Layer 0 alone was asked for at first: layer 1 has seen the latest rows only.
  const Layer asked[] = {Layer{0}};
  const std::unique_ptr<PlacementPolicy> by_layer = New(kShape, AlwaysPlan());
  Place(by_layer.get(), kShape, Rows(loads, 0, 4), &start, asked);
  const Placement placement = Place(by_layer.get(), kShape, Rows(loads, 4, 6), &start);
  EXPECT_EQ(placement.experts_of_slots(Layer{0}), at_once.experts_of_slots(Layer{0}));
  EXPECT_EQ(placement.experts_of_slots(Layer{1}), latest.experts_of_slots(Layer{1}));
}

// Seven rows and two samples: groups of three, the first row left out.
TEST(Flashlb, AddsUpRowsInGroupsWhereTheyAreMoreThanSamples) {
  const std::vector<double> loads = Loads(7, "AddsUpRows");
  const size_t row = kShape.layers * kShape.experts;
  std::vector<double> groups(2 * row);
  for (size_t i = row; i < loads.size(); ++i) groups[(i / row - 1) / 3 * row + i % row] += loads[i];
  FlashlbPlacement config = AlwaysPlan();
  config.set_sample_size(2);
  EXPECT_TRUE(Place(New(kShape, config).get(), kShape, loads, nullptr) ==
              Place(New(kShape, AlwaysPlan()).get(), kShape, groups, nullptr));
}

// Layer 0 goes from 16 and 4 (10 / 16) to 11 and 9, layer 1 from 20 and 0 (1 / 2) to 10 and 10: it gains more.  Layer 2
// is in balance.
TEST(Flashlb, OrdersLayersByWhatTheyGain) {
  const PlacementShape shape{.layers = 3, .experts = 4, .slots = 4, .ranks = 2};
  const std::unique_ptr<PlacementPolicy> policy = New(shape);
  Place(policy.get(), shape, {9, 7, 2, 2, 10, 10, 0, 0, 5, 5, 5, 5}, nullptr);
  EXPECT_THAT(policy->change_order(), ElementsAre(Layer{1}, Layer{0}));
}

TEST(Flashlb, FillsSlotsThatAreEmpty) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 4, .ranks = 2};
  const Placement previous = Make(shape, {0, 1, -1, -1});
  EXPECT_THAT(Phy2Log(Place(New(shape).get(), shape, {0, 0}, &previous)), ElementsAre(0, 1, 0, 1));
}

// Experts 0 and 2 are hot together, then 1 and 3; on a rank 0 and 2 make 24 and 16, 0 and 3 make 20 each time.  By
// totals alone all placements are in balance, and the start stays.
TEST(Flashlb, TellsWhatIsHotTogetherFromWhatIsHotInTurn) {
  const Placement start = Make(kPairs, {0, 2, 1, 3});
  const std::vector<double> turns = {12, 8, 12, 8, 8, 12, 8, 12};
  EXPECT_THAT(Phy2Log(Place(New(kPairs).get(), kPairs, turns, &start)), ElementsAre(0, 3, 1, 2));
  FlashlbPlacement config;
  config.set_sample_size(1);
  EXPECT_TRUE(Place(New(kPairs, config).get(), kPairs, turns, &start) == start);
}

TEST(FlashlbPolicy, SaysWhatItCannotServe) {
  PlacementShape shape{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  const auto message = [&](auto change) {
    FlashlbPlacement config;
    change(config);
    return std::string(NewFlashlbPlacement(config, shape).status().message());
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_THAT(message([](auto& c) { c.set_z_score(-1); }), HasSubstr("z_score: -1 is not"));
  EXPECT_THAT(message([](auto& c) { c.set_tree_depth(0); }), HasSubstr("tree_depth: 0 is not within 1 to 4096"));
  EXPECT_THAT(message([](auto& c) { c.set_tree_width(70000); }), HasSubstr("tree_width: 70000 is more than 65536"));
  EXPECT_THAT(message([](auto& c) { c.set_sample_size(0); }), HasSubstr("sample_size: 0 is not within"));
  EXPECT_THAT(message([](auto& c) { c.set_max_observation_window(0); }), HasSubstr("max_observation_window: 0 is not"));
  EXPECT_THAT(message([](auto& c) { c.set_update_threshold_ratio(NAN); }), HasSubstr("update_threshold_ratio: nan"));
  EXPECT_THAT(message([](auto& c) { c.set_update_threshold_value(1.5); }), HasSubstr("update_threshold_value: 1.5"));
  shape.experts = shape.slots = 5000;
  EXPECT_THAT(message([](auto&) {}), HasSubstr("experts: 5000 are more than 4096"));
}

}  // namespace
}  // namespace epsim
