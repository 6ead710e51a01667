// Does a routing keep to the placement in force, under every replica choice?
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "models/routing/placed_routing.h"
#include "policies/replica/replica_choice.h"
#include "tests/policies/replica/drawn_placement.h"

namespace epsim {
namespace {

constexpr int kLayers = 3, kExperts = 20, kTokens = 160, kTopK = 4;
const PlacementShape kShape{.layers = kLayers, .experts = kExperts, .slots = 48, .ranks = 8, .nodes = 2};

std::vector<std::string> ChoiceNames() {
  std::vector<std::string> names;
  const auto* choices = ReplicaChoiceConfig::descriptor()->FindOneofByName("choice");
  for (int i = 0; i < choices->field_count(); ++i) names.push_back(choices->field(i)->name());
  return names;
}

class PlacedRoutingContract : public testing::TestWithParam<std::string> {
 protected:
  PlacedRoutingContract()
      : random_(16, "placed_routing"), first_(DrawPlacement(kShape, &random_)), next_(DrawPlacement(kShape, &random_)) {
    ReplicaChoiceConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    if (config.has_plugin()) config.mutable_plugin()->set_library(EPSIM_EXAMPLE_PLUGIN);
    choice_ = NewReplicaChoice(config).value();
    for (int i = 0; i < kLayers * kTokens; ++i) {
      const auto first = static_cast<int>(random_.Below(kExperts));
      for (int k = 0; k < kTopK; ++k) ids_.push_back(static_cast<uint8_t>((first + 3 * k) % kExperts));
    }
    for (int i = 0; i < kLayers * kExperts; ++i) counts_.push_back(0);
    for (size_t i = 0; i < ids_.size(); ++i) ++counts_[i / (kTokens * kTopK) * kExperts + ids_[i]];
    batch_.tokens = kTokens;
    for (int rank = 0; rank <= kShape.ranks; ++rank) batch_.rank_begin.push_back(rank * kTokens / kShape.ranks);
    batch_.layers = kLayers;
    batch_.top_k = kTopK;
    batch_.ids = reinterpret_cast<const std::byte*>(ids_.data());
    batch_.layer_stride = kTokens * kTopK;
  }

  std::unique_ptr<PlacedRouting> Routing(const Placement& placement) {
    return std::make_unique<PlacedRouting>(placement, choice_.get(), 7, RoutingDetail{});
  }
  RoutedLayer Count(const PlacedRouting& routing, int layer) {
    RoutedLayer routed;
    routing.Count(batch_, WholeBatch(batch_), Layer(layer), &routed);
    return routed;
  }
  // Every pair of every expert is computed by its replicas in `placement`.
  void ExpectAllPairsOn(const Placement& placement, int layer, const RoutedLayer& routed) {
    for (int e = 0; e < kExperts; ++e) {
      int64_t computed = 0;
      for (const Slot slot : placement.replicas(Layer(layer), LogicalExpert(e))) {
        computed += routed.tokens_per_slot[Index(slot)];
      }
      EXPECT_EQ(computed, counts_[layer * kExperts + e]) << "layer " << layer << ", expert " << e;
    }
  }

  RandomStream random_;
  const Placement first_, next_;
  std::unique_ptr<ReplicaChoice> choice_;
  std::vector<uint8_t> ids_;
  std::vector<uint32_t> counts_;  // [layers, experts]
  StepBatch batch_;
};

TEST_P(PlacedRoutingContract, EveryPairIsComputedByAReplicaUnderThePlacementInForce) {
  const auto routing = Routing(first_);
  for (int layer = 0; layer < kLayers; ++layer) ExpectAllPairsOn(first_, layer, Count(*routing, layer));
  const RoutedLayer before = Count(*routing, 0);
  routing->SwitchLayer(Layer(1), next_);
  EXPECT_EQ(Count(*routing, 0).tokens_per_slot, before.tokens_per_slot);  // Other layers stay.
  ExpectAllPairsOn(next_, 1, Count(*routing, 1));
  ExpectAllPairsOn(first_, 2, Count(*routing, 2));
  routing->SwitchLayer(Layer(0), next_);
  routing->SwitchLayer(Layer(2), next_);
  EXPECT_EQ(routing->placement(), next_);
  for (int layer = 0; layer < kLayers; ++layer) ExpectAllPairsOn(next_, layer, Count(*routing, layer));
}

TEST_P(PlacedRoutingContract, CountsWithoutIdsFollowThePlacementToo) {
  batch_.ids = nullptr;
  batch_.counts = counts_.data();
  const auto routing = Routing(first_);
  ExpectAllPairsOn(first_, 1, Count(*routing, 1));
  routing->SwitchLayer(Layer(1), next_);
  ExpectAllPairsOn(next_, 1, Count(*routing, 1));
  ExpectAllPairsOn(first_, 2, Count(*routing, 2));
}

TEST_P(PlacedRoutingContract, EqualSeedsGiveEqualCounts) {
  const auto a = Routing(first_), b = Routing(first_);
  for (int layer = 0; layer < kLayers; ++layer) {
    EXPECT_EQ(Count(*a, layer).tokens_per_slot, Count(*b, layer).tokens_per_slot);
    EXPECT_EQ(Count(*a, layer).tokens_between, Count(*b, layer).tokens_between);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryChoice, PlacedRoutingContract, testing::ValuesIn(ChoiceNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace epsim
