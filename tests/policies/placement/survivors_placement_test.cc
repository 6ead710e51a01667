// Does every policy place on the survivors as it would on a cluster that has no other ranks?
#include "policies/placement/survivors_placement.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "gtest/gtest.h"
#include "policies/placement/contiguous_placement.h"
#include "tests/policies/placement/plan_once.h"
#include "tests/policies/placement/simple_costs.h"

namespace epsim {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

std::vector<Rank> Ranks(const std::vector<int>& ids) {
  std::vector<Rank> ranks;
  for (int id : ids) ranks.push_back(Rank(id));
  return ranks;
}

// 4 nodes of 2 ranks of 3 slots.
const PlacementShape kFourNodes{.layers = 2, .experts = 12, .slots = 24, .ranks = 8, .nodes = 4, .expert_groups = 4};

TEST(SurvivorShape, HasTheSlotsOfTheSurvivors) {
  PlacementShape expected = kFourNodes;
  EXPECT_EQ(SurvivorShape(kFourNodes, {}).value(), expected);
  expected.ranks = 6;
  expected.slots = 18;
  expected.nodes = 3;
  EXPECT_EQ(SurvivorShape(kFourNodes, Ranks({2, 3})).value(), expected);  // A node.
}

TEST(SurvivorShape, CountsNodesWhereTheyHaveEquallyManySurvivors) {
  const auto nodes = [](const std::vector<int>& failed) {
    return SurvivorShape(kFourNodes, Ranks(failed)).value().nodes;
  };
  EXPECT_EQ(nodes({1, 2, 4, 7}), 4);  // One survivor on each.
  EXPECT_EQ(nodes({0, 1, 2, 5}), 1);  // 0 1 1 2.
  EXPECT_EQ(nodes({7}), 1);           // 2 2 2 1.
  EXPECT_EQ(nodes({0, 1, 6, 7}), 2);  // 0 2 2 0.
  EXPECT_EQ(nodes({0, 1, 4, 5}), 2);  // 0 2 0 2.
}

// EPLB's global policy takes 8 ranks on 3 nodes, which it ignores; so does its shape of survivors.
TEST(SurvivorShape, NodesThatDoNotDivideTheRanksMeanNothing) {
  PlacementShape shape{.layers = 1, .experts = 6, .slots = 8, .ranks = 8, .nodes = 3};
  EXPECT_EQ(SurvivorShape(shape, Ranks({0})).value().nodes, 1);
  shape.nodes = 16;
  EXPECT_EQ(SurvivorShape(shape, Ranks({0, 7})).value().nodes, 1);
}

TEST(SurvivorShape, SaysHowManySlotsWouldDo) {
  const PlacementShape shape{.layers = 1, .experts = 8, .slots = 8, .ranks = 4, .nodes = 2};
  EXPECT_EQ(SurvivorShape(shape, Ranks({3})).status(),
            absl::InvalidArgumentError("with 1 of 4 ranks failed, 6 slots are left for 8 experts, 2 a rank; "
                                       "3 a rank would fit"));
  EXPECT_EQ(SurvivorShape(shape, Ranks({0, 1, 2})).status(),
            absl::InvalidArgumentError("with 3 of 4 ranks failed, 2 slots are left for 8 experts, 2 a rank; "
                                       "8 a rank would fit"));
  EXPECT_EQ(SurvivorShape(shape, Ranks({0, 1, 2, 3})).status(),
            absl::InvalidArgumentError("with 4 of 4 ranks failed, 0 slots are left for 8 experts, 2 a rank"));
  EXPECT_TRUE(SurvivorShape({.layers = 1, .experts = 8, .slots = 12, .ranks = 6}, Ranks({1, 4})).ok());  // Just 8.
}

// --- Every policy of the schema that needs no library.

std::vector<std::string> PolicyNames() {
  std::vector<std::string> names;
  const auto* policies = PlacementPolicyConfig::descriptor()->FindOneofByName("policy");
  for (int i = 0; i < policies->field_count(); ++i) {
    if (policies->field(i)->message_type() != Plugin::descriptor()) names.push_back(policies->field(i)->name());
  }
  return names;
}

struct Outage {
  PlacementShape shape;
  std::vector<int> failed;
};

// A rank, a node, a rank of each node, all but one, and as few slots as there are experts.
const Outage kOutages[] = {
    {kFourNodes, {3}},
    {kFourNodes, {4, 5}},
    {kFourNodes, {0, 2, 5, 7}},
    {{.layers = 3, .experts = 3, .slots = 9, .ranks = 3}, {0, 2}},
    {{.layers = 2, .experts = 8, .slots = 12, .ranks = 6, .nodes = 2, .expert_groups = 2}, {0, 5}},
    {{.layers = 2, .experts = 64, .slots = 72, .ranks = 36, .nodes = 9, .expert_groups = 8}, {8, 9, 10, 11}},
};

std::vector<double> DrawLoads(const PlacementShape& shape, int rows, RandomStream* random) {
  std::vector<double> tokens(static_cast<size_t>(rows) * shape.layers * shape.experts);
  for (double& load : tokens) load = static_cast<double>(random->Below(1 << 16) >> random->Below(12));
  return tokens;
}

class SurvivorsPlacement : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<PlacementPolicy> New(const PlacementShape& shape) {
    PlacementPolicyConfig config;
    config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(GetParam()));
    return NewPlacementPolicy(config, shape).value();
  }

  static absl::StatusOr<Placement> Place(PlacementPolicy* policy, const PlacementShape& shape,
                                         const std::vector<double>& tokens, const Placement* previous,
                                         absl::Span<const Rank> failed, RandomStream* random,
                                         absl::Span<const Layer> layers = {}) {
    PlacementRequest request;
    request.window = {.rows = static_cast<int>(tokens.size()) / (shape.layers * shape.experts),
                      .layers = shape.layers,
                      .experts = shape.experts,
                      .tokens = tokens};
    request.previous = previous;
    request.failed = failed;
    request.layers = layers;
    request.random = random;
    return policy->Place(request);
  }

  // Slots of failed ranks hold nothing, all others an expert, and every expert is there.
  static void ExpectValid(const Placement& placement, absl::Span<const Rank> failed) {
    const PlacementShape& shape = placement.shape();
    for (int layer = 0; layer < shape.layers; ++layer) {
      size_t listed = 0, held = 0;
      for (int slot = 0; slot < shape.slots; ++slot) {
        const bool away = std::binary_search(failed.begin(), failed.end(), shape.rank_of(Slot(slot)));
        ASSERT_EQ(placement.experts_of_slots(Layer(layer))[slot] == kNoExpert, away) << "slot " << slot;
        held += !away;
      }
      for (int expert = 0; expert < shape.experts; ++expert) {
        const absl::Span<const Slot> replicas = placement.replicas(Layer(layer), LogicalExpert(expert));
        ASSERT_FALSE(replicas.empty()) << "expert " << expert;
        for (Slot slot : replicas) {
          ASSERT_EQ(placement.experts_of_slots(Layer(layer))[Index(slot)], LogicalExpert(expert));
        }
        listed += replicas.size();
      }
      ASSERT_EQ(listed, held);
    }
  }
};

TEST_P(SurvivorsPlacement, EveryExpertHasASlotOnASurvivorAndAllRanksAreUsedAgainLater) {
  for (const Outage& outage : kOutages) {
    const PlacementShape& shape = outage.shape;
    const std::vector<Rank> failed = Ranks(outage.failed);
    RandomStream loads(3, "loads"), random(3, "placement");
    const std::unique_ptr<PlacementPolicy> policy = New(shape);
    Placement placement = PlaceContiguously(shape);
    for (const auto& away : {std::vector<Rank>{}, failed, failed, {}, {}, failed}) {
      placement = Place(policy.get(), shape, DrawLoads(shape, 4, &loads), &placement, away, &random).value();
      ExpectValid(placement, away);
    }
  }
}

// More ranks fail, then only some of them return.
TEST_P(SurvivorsPlacement, FollowsWhoIsAway) {
  RandomStream loads(5, "loads"), random(5, "placement");
  const std::unique_ptr<PlacementPolicy> policy = New(kFourNodes);
  Placement placement = PlaceContiguously(kFourNodes);
  for (const std::vector<int>& away : {std::vector<int>{1}, {1, 6}, {0, 1, 6, 7}, {6, 7}, {6}, {}}) {
    placement =
        Place(policy.get(), kFourNodes, DrawLoads(kFourNodes, 2, &loads), &placement, Ranks(away), &random).value();
    ExpectValid(placement, Ranks(away));
  }
}

// Slot s of survivor i is slot s of the i-th rank of the small cluster, and the replicas come in its order: for two
// plans in a row, the second on top of the first.
TEST_P(SurvivorsPlacement, PlacesAsOnAClusterOfTheSurvivors) {
  for (const Outage& outage : kOutages) {
    const PlacementShape& shape = outage.shape;
    const std::vector<Rank> failed = Ranks(outage.failed);
    const PlacementShape small_shape = SurvivorShape(shape, failed).value();
    std::vector<int> slots;  // Of the survivors.
    for (int slot = 0; slot < shape.slots; ++slot) {
      if (!std::binary_search(failed.begin(), failed.end(), shape.rank_of(Slot(slot)))) slots.push_back(slot);
    }
    RandomStream loads(7, "loads"), random(7, "placement"), small_random(7, "placement");
    const std::unique_ptr<PlacementPolicy> policy = New(shape), small_policy = New(small_shape);
    Placement placement = PlaceContiguously(shape);
    std::optional<Placement> small;
    for (int turn = 0; turn < 2; ++turn) {
      const std::vector<double> tokens = DrawLoads(shape, 3, &loads);
      placement = Place(policy.get(), shape, tokens, &placement, failed, &random).value();
      small = Place(small_policy.get(), small_shape, tokens, small.has_value() ? &*small : nullptr, {}, &small_random)
                  .value();
      for (int layer = 0; layer < shape.layers; ++layer) {
        std::vector<std::vector<int>> expected = Log2Phy(*small, layer);
        for (std::vector<int>& replicas : expected) {
          for (int& slot : replicas) slot = slots[slot];
        }
        ASSERT_EQ(Log2Phy(placement, layer), expected) << shape.ranks << " ranks, turn " << turn;
      }
      ASSERT_EQ(policy->change_order(), small_policy->change_order());
    }
  }
}

TEST_P(SurvivorsPlacement, PlacesTheLayersAskedForOnTheSurvivors) {
  const std::vector<Rank> failed = Ranks({3});
  RandomStream loads(9, "loads"), random(9, "placement");
  const std::unique_ptr<PlacementPolicy> policy = New(kFourNodes);
  const Placement previous =
      Place(policy.get(), kFourNodes, DrawLoads(kFourNodes, 2, &loads), nullptr, failed, &random).value();
  const Placement placement =
      Place(policy.get(), kFourNodes, DrawLoads(kFourNodes, 2, &loads), &previous, failed, &random, {Layer{1}}).value();
  ExpectValid(placement, failed);
  EXPECT_EQ(Log2Phy(placement, 0), Log2Phy(previous, 0));
}

TEST_P(SurvivorsPlacement, FailsWhereTooFewSlotsAreLeft) {
  RandomStream loads(11, "loads"), random(11, "placement");
  const std::unique_ptr<PlacementPolicy> policy = New(kFourNodes);
  const std::vector<double> tokens = DrawLoads(kFourNodes, 1, &loads);
  EXPECT_EQ(Place(policy.get(), kFourNodes, tokens, nullptr, Ranks({0, 1, 2, 3, 4}), &random).status().message(),
            "with 5 of 8 ranks failed, 9 slots are left for 12 experts, 3 a rank; 4 a rank would fit");
  // That request leaves no trace.
  ExpectValid(Place(policy.get(), kFourNodes, tokens, nullptr, {}, &random).value(), {});
  ExpectValid(Place(policy.get(), kFourNodes, tokens, nullptr, Ranks({0}), &random).value(), Ranks({0}));
}

// Every view there is, of all ranks: whoever asks for the exchange gets the survivors'.
TEST_P(SurvivorsPlacement, LooksAtCostsOfTheSurvivors) {
  const SimpleCosts costs(8, {.node_ps = 1, .through_ps = 0, .network_ps = 5}, ExchangeCost::Copies::kOncePerNode);
  RandomStream random(13, "placement");
  const std::vector<double> tokens = DrawLoads(kFourNodes, 1, &random), times(24, 3.0);
  std::vector<uint16_t> sample(2 * 50 * 2);
  for (size_t i = 0; i < sample.size(); ++i)
    sample[i] = static_cast<uint16_t>(i % 2 == 0 ? i / 2 % 12 : (i / 2 + 5) % 12);
  const ExpertProfile profile{.layers = 2, .experts = 12, .time_per_token = times};
  const CoActivation together{.layers = 2, .tokens = 50, .top_k = 2, .experts = sample};
  for (const std::vector<int>& away : {std::vector<int>{3}, {4, 5}, {0, 2, 5, 7}}) {
    const std::vector<Rank> failed = Ranks(away);
    PlacementRequest request;
    request.window = {.rows = 1, .layers = 2, .experts = 12, .tokens = tokens};
    request.failed = failed;
    request.cost = &costs;
    request.profile = &profile;
    request.co_activation = &together;
    request.random = &random;
    ExpectValid(New(kFourNodes)->Place(request).value(), failed);
  }
}

INSTANTIATE_TEST_SUITE_P(EveryPolicy, SurvivorsPlacement, testing::ValuesIn(PolicyNames()),
                         [](const auto& info) { return info.param; });

// --- What the policy behind it is asked.

// What one policy was asked.
struct Asked {
  PlacementShape shape;  // The policy's.
  int previous_ranks;    // 0: none.
  size_t layers;
  std::vector<double> sending_node_ps;  // Of its exchange, if it saw one.
  Duration expert_time{};
};
std::vector<Asked>* asked = nullptr;

class AskedPolicy : public PlacementPolicy {
 public:
  explicit AskedPolicy(const PlacementShape& shape) : shape_(shape) {}
  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    EXPECT_THAT(request.failed, IsEmpty());
    Asked& now = asked->emplace_back();
    now.shape = shape_;
    now.previous_ranks = request.previous != nullptr ? request.previous->shape().ranks : 0;
    now.layers = request.layers.size();
    if (request.cost != nullptr) {
      now.expert_time = request.cost->ExpertTime(Layer{0}, {LogicalExpert{0}}, {40});
      if (const ExchangeCost* const exchange = request.cost->exchange(); exchange != nullptr) {
        for (const PortTime& port : exchange->sending) now.sending_node_ps.push_back(port.node_ps);
        EXPECT_EQ(exchange->receiving.size(), exchange->sending.size());
      }
    }
    return PlaceContiguously(shape_);
  }
  std::vector<Layer> change_order() const override { return {Layer(shape_.ranks)}; }

 private:
  const PlacementShape shape_;
};

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewAskedPolicy(const PlacementPolicyConfig&,
                                                                const PlacementShape& shape) {
  return std::make_unique<AskedPolicy>(shape);
}

class Delegation : public testing::Test {
 protected:
  Delegation() { asked = &asked_; }
  ~Delegation() override { asked = nullptr; }

  void Place(const std::vector<int>& away, absl::Span<const Layer> layers = {}, const CostView* cost = nullptr) {
    const std::vector<Rank> failed = Ranks(away);
    PlacementRequest request;
    request.window = {.rows = 0, .layers = 2, .experts = 12, .tokens = {}};
    request.previous = &previous_;
    request.failed = failed;
    request.layers = layers;
    request.cost = cost;
    request.random = &random_;
    previous_ = policy_->Place(request).value();
  }

  std::vector<Asked> asked_;
  RandomStream random_{1, "placement"};
  Placement previous_ = PlaceContiguously(kFourNodes);
  std::unique_ptr<PlacementPolicy> policy_ =
      NewSurvivorsPlacement(std::make_unique<AskedPolicy>(kFourNodes), {}, kFourNodes, NewAskedPolicy);
};

// The first plan of new survivors has nothing to go on from, and is of all layers; later ones go on from it.
TEST_F(Delegation, APolicyIsMadeAnewWheneverOthersFail) {
  Place({});
  EXPECT_THAT(policy_->change_order(), ElementsAre(Layer{8}));
  Place({2});
  EXPECT_THAT(policy_->change_order(), ElementsAre(Layer{7}));
  Place({2});
  Place({2}, {Layer{1}});
  Place({2, 3});
  Place({});
  EXPECT_THAT(policy_->change_order(), ElementsAre(Layer{8}));
  Place({2, 3});
  std::vector<int> ranks, previous_ranks;
  std::vector<size_t> layers;
  for (const Asked& one : asked_) {
    ranks.push_back(one.shape.ranks);
    previous_ranks.push_back(one.previous_ranks);
    layers.push_back(one.layers);
  }
  EXPECT_THAT(ranks, ElementsAre(8, 7, 7, 7, 6, 8, 6));
  EXPECT_THAT(previous_ranks, ElementsAre(8, 0, 7, 7, 0, 8, 0));
  EXPECT_THAT(layers, ElementsAre(0, 0, 0, 1, 0, 0, 0));
}

// Rank r sends at r ps a copy.
class NumberedPorts : public CostView {
 public:
  NumberedPorts() {
    for (int rank = 0; rank < 8; ++rank) {
      exchange_.sending.push_back({.node_ps = static_cast<double>(rank)});
      exchange_.receiving.push_back({.node_ps = 1});
    }
  }
  Duration ExpertTime(Layer, absl::Span<const LogicalExpert>, absl::Span<const int32_t> tokens) const override {
    return Duration(tokens[0] + 2);
  }
  const ExchangeCost* exchange() const override { return &exchange_; }

 private:
  ExchangeCost exchange_;
};

TEST_F(Delegation, ThePolicySeesThePortsOfTheSurvivors) {
  const NumberedPorts costs;
  Place({}, {}, &costs);
  EXPECT_THAT(asked_.back().sending_node_ps, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7));
  Place({2, 3}, {}, &costs);
  EXPECT_THAT(asked_.back().sending_node_ps, ElementsAre(0, 1, 4, 5, 6, 7));
  EXPECT_EQ(asked_.back().expert_time, Duration(42));
  Place({0, 3, 4, 7}, {}, &costs);
  EXPECT_THAT(asked_.back().sending_node_ps, ElementsAre(1, 2, 5, 6));
  // Nodes with 2 2 2 1 survivors pass for one, whose ports say nothing of the network.
  Place({7}, {}, &costs);
  EXPECT_THAT(asked_.back().sending_node_ps, IsEmpty());
  EXPECT_EQ(asked_.back().expert_time, Duration(42));
}

}  // namespace
}  // namespace epsim
