#include "policies/placement/swift_placement.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
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

// One layer, from `before`.
std::vector<int> Planned(const std::vector<int>& before, int ranks, const std::vector<double>& load,
                         const SwiftPlacement& config = {}) {
  const PlacementShape shape{
      .layers = 1, .experts = static_cast<int>(load.size()), .slots = static_cast<int>(before.size()), .ranks = ranks};
  const Placement previous = Make(shape, before);
  return Phy2Log(Place(NewSwiftPlacement(config, shape).value().get(), shape, load, &previous));
}

std::vector<double> RankLoads(const Placement& placement, int layer, absl::Span<const double> load) {
  const PlacementShape& shape = placement.shape();
  std::vector<double> loads(shape.ranks);
  for (int slot = 0; slot < shape.slots; ++slot) {
    const LogicalExpert expert = placement.experts_of_slots(Layer(layer))[slot];
    loads[Index(shape.rank_of(Slot(slot)))] +=
        load[Index(expert)] / static_cast<double>(placement.replicas(Layer(layer), expert).size());
  }
  return loads;
}

double Hottest(const Placement& placement, int layer, absl::Span<const double> load) {
  const std::vector<double> loads = RankLoads(placement, layer, load);
  return *std::max_element(loads.begin(), loads.end());
}

// Loads 2 10 2, experts 0 1 | 2 0: ranks carry 1 + 10 and 2 + 1.  The second copy of 0 is redundant; 10 is the largest,
// a copy makes it 5 + 5; 1 goes to rank 1, which then carries 2 + 5, as rank 0.
TEST(Swift, DecidesRedundantSlotsAnew) { EXPECT_THAT(Planned({0, 1, 2, 0}, 2, {2, 10, 2}), ElementsAre(0, 1, 2, 1)); }

// Loads 2 8 6: ranks carry 9 and 7.  A copy of 1 on rank 1 would make it 6 and 10 (and the pair has had its transfer,
// so no exchange follows): worse, so nothing changes.
TEST(Swift, KeepsAPlanOnlyIfTheHottestRankCarriesLess) {
  EXPECT_THAT(Planned({0, 1, 2, 0}, 2, {2, 8, 6}), ElementsAre(0, 1, 2, 0));
}

// The first slots of the ranks come first, so 1 is fixed on rank 1 and the second slot of either rank is redundant.  8
// and 6 are split: 4 + 4, 3 + 3.  Fixed: 0 and 2 on rank 0 (1 + 4), 1 and 3 on rank 1 (1 + 3).  2 goes to rank 1, 3 to
// rank 0: 8 each.  (In rank order 0, 1, 2 were fixed on rank 0 and both redundant slots on rank 1.)
TEST(Swift, FixesTheFirstSlotOfEachExpertInSlotMajorOrder) {
  EXPECT_THAT(Planned({0, 1, 2, 1, 0, 3}, 2, {1, 1, 8, 6}), ElementsAre(0, 3, 2, 1, 2, 3));
}

// Two redundant slots, both on rank 1 (ranks carry 13 and 3).  2 is split, 12 = 6 + 6, and may not have a third copy on
// two ranks; then 3, 2 = 1 + 1.  2 goes to rank 1; 3 is there already and rank 0 has no slot free.  The open slot takes
// the heaviest that rank 1 does not hold: 0 and 1 (1 each; it held both before): the higher, 1, in its old slot.
TEST(Swift, FillsWhatIsLeftWithTheHeaviestThatTheRankDoesNotHold) {
  EXPECT_THAT(Planned({0, 1, 2, 3, 0, 1}, 2, {1, 1, 12, 2}), ElementsAre(0, 1, 2, 3, 2, 1));
}

// Loads 6 4 3 1: 10 and 4.  Exchanging 0 and 2 leaves 7 and 7, as would 1 and 3: the first in slot order.
TEST(Swift, ExchangesThePairThatLeavesTheLowestMaximum) {
  EXPECT_THAT(Planned({0, 1, 2, 3}, 2, {6, 4, 3, 1}), ElementsAre(2, 1, 0, 3));
}

// Five times 2 and five times 0: 10 and 0.  An exchange leaves 8 and 2, all pairs alike; a second one 6 and 4.
TEST(Swift, TwoRanksExchangeOnlyAsOftenAsTransfersMayGoBetweenThem) {
  const std::vector<int> before = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
  const std::vector<double> load = {2, 2, 2, 2, 2, 0, 0, 0, 0, 0};
  EXPECT_THAT(Planned(before, 2, load), ElementsAre(5, 1, 2, 3, 4, 0, 6, 7, 8, 9));
  SwiftPlacement config;
  config.set_num_max_com(2);
  EXPECT_THAT(Planned(before, 2, load, config), ElementsAre(5, 6, 2, 3, 4, 0, 1, 7, 8, 9));
  config.set_max_swap_times(1);
  EXPECT_THAT(Planned(before, 2, load, config), ElementsAre(5, 1, 2, 3, 4, 0, 6, 7, 8, 9));
}

// Three ranks carry 12 + 8, 10 + 1 and 2 + 1.  Rank 2 is tried first: 12 for 2 leaves 10 and 13, as does 8 for 1;
// others more.  Now it is the hottest, 13 to 11 and 10, but of its experts only 1 may move (12 came), and that helps
// nobody.
TEST(Swift, TriesTheCoolestRankFirstAndDoesNotMoveAnExpertTwice) {
  EXPECT_THAT(Planned({0, 1, 2, 3, 4, 5}, 3, {12, 8, 10, 1, 2, 1}), ElementsAre(4, 1, 2, 3, 0, 5));
}

// 100.4 and 99.6 is within 1.01 of the mean and left; 102 and 98 is not, but an exchange that leaves 100 and 100 gains
// 2 % of the mean, the hottest loads fall by less than 5 %, and nothing changes until 5 % are not asked for.
TEST(Swift, IgnoresWhatDoesNotPay) {
  SwiftPlacement config;
  config.set_change_threshold(1);
  const std::vector<int> before = {0, 1, 2, 3}, exchanged = {2, 1, 0, 3};
  EXPECT_EQ(Planned(before, 2, {60.4, 40, 60, 39.6}, config), before);
  const std::vector<double> load = {62, 40, 60, 38};
  EXPECT_EQ(Planned(before, 2, load), before);
  EXPECT_EQ(Planned(before, 2, load, config), exchanged);
  config.set_swap_gain(0.021);
  EXPECT_EQ(Planned(before, 2, load, config), before);
  config.set_swap_gain(0.02);
  EXPECT_EQ(Planned(before, 2, load, config), exchanged);
  config.set_imbalance_threshold(1.021);
  EXPECT_EQ(Planned(before, 2, load, config), before);
}

// Layer 0 falls from 11 to 7 (0.64).  Layer 1 is balanced.  Layer 2 carries 9 and 1, then 4.5 and 1 + 4.5 (0.61).
TEST(Swift, OrdersLayersByWhatTheyGain) {
  const PlacementShape shape{.layers = 3, .experts = 3, .slots = 4, .ranks = 2};
  const Placement previous = Make(shape, {0, 1, 2, 0, 0, 1, 2, 0, 0, 1, 2, 0});
  const std::unique_ptr<PlacementPolicy> policy = NewSwiftPlacement({}, shape).value();
  const std::vector<double> load = {2, 10, 2, 2, 4, 4, 0, 9, 1};
  const Placement placement = Place(policy.get(), shape, load, &previous);
  EXPECT_THAT(Phy2Log(placement, 0), ElementsAre(0, 1, 2, 1));
  EXPECT_THAT(Phy2Log(placement, 1), ElementsAre(0, 1, 2, 0));
  EXPECT_THAT(Phy2Log(placement, 2), ElementsAre(0, 1, 2, 1));
  EXPECT_THAT(policy->change_order(), ElementsAre(Layer{2}, Layer{0}));

  // Only layer 1 is asked for: nothing to do.
  const Layer asked[] = {Layer{1}};
  EXPECT_TRUE(Place(policy.get(), shape, load, &previous, asked) == previous);
  EXPECT_THAT(policy->change_order(), IsEmpty());
}

// The threshold is of the sum over layers: layer 0 falls from 102 to 100, which would not do, layer 1 from 20 to 10.
TEST(Swift, ChangesAllLayersOrNone) {
  const PlacementShape shape{.layers = 2, .experts = 4, .slots = 4, .ranks = 2};
  const Placement previous = Make(shape, {0, 1, 2, 3, 0, 1, 2, 3});
  const std::unique_ptr<PlacementPolicy> policy = NewSwiftPlacement({}, shape).value();
  EXPECT_TRUE(Place(policy.get(), shape, {62, 40, 60, 38, 5, 5, 5, 5}, &previous) == previous);
  EXPECT_TRUE(Place(policy.get(), shape, {62, 40, 60, 38, 10, 10, 0, 0}, &previous) ==
              Make(shape, {2, 1, 0, 3, 2, 1, 0, 3}));
}

TEST(Swift, StartsAsAServerDoesAndAddsUpTheWindow) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 4, .ranks = 2};
  const std::unique_ptr<PlacementPolicy> policy = NewSwiftPlacement({}, shape).value();
  EXPECT_THAT(Phy2Log(Place(policy.get(), shape, {2, 3, 1, 0, 7, 1}, nullptr)), ElementsAre(0, 1, 2, 1));
  EXPECT_THAT(Phy2Log(Place(policy.get(), shape, {0, 0, 0}, nullptr)), ElementsAre(0, 1, 2, 0));
}

// Rank 1 came back: its slots are filled although that changes no hottest load by 5 %, and whatever the load.
TEST(Swift, FillsSlotsThatAreEmpty) {
  EXPECT_THAT(Planned({0, 1, -1, -1}, 2, {5, 5}), ElementsAre(0, 1, 0, 1));
  EXPECT_THAT(Planned({0, 1, -1, -1}, 2, {0, 0}), ElementsAre(0, 1, 0, 1));
}

// One rank of five slots holds all three experts: the heaviest share, 9, then 9 / 2, ties to the highest.
TEST(Swift, RepeatsExpertsOnARankThatHoldsThemAll) {
  const PlacementShape shape{.layers = 1, .experts = 3, .slots = 5, .ranks = 1};
  const Placement previous = Make(shape, {0, 1, 2, 1, 1});
  const std::unique_ptr<PlacementPolicy> policy = NewSwiftPlacement({}, shape).value();
  EXPECT_TRUE(Place(policy.get(), shape, {9, 4, 1}, &previous) == previous);  // Balanced: one rank.
  EXPECT_THAT(Planned({0, 1, 2, -1, -1}, 1, {9, 4, 1}), ElementsAre(0, 1, 2, 0, 0));
}

// Every rank holds its share of the experts and the next one, as vllm-ascend starts.
Placement SpreadStart(const PlacementShape& shape) {
  std::vector<int> experts;
  for (int layer = 0; layer < shape.layers; ++layer) {
    for (int rank = 0; rank < shape.ranks; ++rank) {
      for (int i = 0; i < shape.slots_per_rank(); ++i) {
        experts.push_back((rank * (shape.experts / shape.ranks) + i) % shape.experts);
      }
    }
  }
  return Make(shape, experts);
}

class SwiftAtScale : public testing::TestWithParam<int> {};

// Plan after plan on drifting loads: from the rank where an expert's fixed slot was to any other go at most num_max_com
// transfers a layer; no layer's hottest load grows; a balanced layer is not touched; and it ends up well balanced.
TEST_P(SwiftAtScale, TransfersFewExpertsAndBalances) {
  const PlacementShape shape{.layers = 4, .experts = 256, .slots = 288, .ranks = 32};
  SwiftPlacement config;
  config.set_num_max_com(GetParam());
  const std::unique_ptr<PlacementPolicy> policy = NewSwiftPlacement(config, shape).value();
  RandomStream random(1, "SwiftAtScale");
  std::vector<double> load(shape.layers * shape.experts);
  for (size_t i = 0; i < load.size(); ++i) load[i] = std::pow(1 + random.Below(shape.experts), -0.8) * 1e6;
  Placement placement = SpreadStart(shape);
  for (int turn = 0; turn < 6; ++turn) {
    for (double& l : load) l *= 0.7 + 0.6 * random.Unit();
    std::fill_n(load.begin(), shape.experts, 0.0);  // Layer 0 is idle.
    const Placement before = std::exchange(placement, Place(policy.get(), shape, load, &placement));
    EXPECT_EQ(placement.experts_of_slots(Layer{0}), before.experts_of_slots(Layer{0}));
    for (int layer = 1; layer < shape.layers; ++layer) {
      const absl::Span<const double> of_layer = absl::MakeConstSpan(load).subspan(layer * shape.experts, shape.experts);
      EXPECT_LE(Hottest(placement, layer, of_layer), Hottest(before, layer, of_layer));
      const double mean = std::accumulate(of_layer.begin(), of_layer.end(), 0.0) / shape.ranks;
      EXPECT_LT(Hottest(placement, layer, of_layer), 1.06 * mean) << "turn " << turn << ", layer " << layer;

      // The rank of each expert's first slot, in slot-major order.
      std::map<int, size_t> home;
      for (int position = 0; position < shape.slots_per_rank(); ++position) {
        for (int rank = 0; rank < shape.ranks; ++rank) {
          home.emplace(Phy2Log(before, layer)[rank * shape.slots_per_rank() + position], rank);
        }
      }
      std::map<std::pair<size_t, size_t>, int> transfers;
      for (int slot = 0; slot < shape.slots; ++slot) {
        const size_t rank = Index(shape.rank_of(Slot(slot)));
        const LogicalExpert expert = placement.experts_of_slots(Layer(layer))[slot];
        const absl::Span<const LogicalExpert> held =
            before.experts_of_slots(Layer(layer)).subspan(rank * shape.slots_per_rank(), shape.slots_per_rank());
        if (std::find(held.begin(), held.end(), expert) != held.end()) continue;
        ++transfers[{home[static_cast<int>(expert)], rank}];
      }
      for (const auto& [pair, count] : transfers) {
        EXPECT_LE(count, GetParam()) << "layer " << layer << ", from rank " << pair.first << " to " << pair.second;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(NumMaxCom, SwiftAtScale, testing::Values(1, 2));

TEST(SwiftPolicy, SaysWhichOptionsItCannotServe) {
  const PlacementShape shape{.layers = 1, .experts = 2, .slots = 2, .ranks = 1};
  const auto message = [&](auto change) {
    SwiftPlacement config;
    change(config);
    return std::string(NewSwiftPlacement(config, shape).status().message());
  };
  EXPECT_EQ(message([](auto&) {}), "");
  EXPECT_THAT(message([](auto& c) { c.set_num_max_com(0); }), HasSubstr("num_max_com: 0 transfers"));
  EXPECT_THAT(message([](auto& c) { c.set_swap_gain(-1); }), HasSubstr("swap_gain: -1 is not"));
  EXPECT_THAT(message([](auto& c) { c.set_imbalance_threshold(NAN); }), HasSubstr("imbalance_threshold: nan is not"));
  EXPECT_THAT(message([](auto& c) { c.set_change_threshold(INFINITY); }), HasSubstr("change_threshold: inf is not"));
  const SwiftPlacement complete = CompleteSwiftPlacement({}).value();
  EXPECT_EQ(complete.imbalance_threshold(), 1.01);
  EXPECT_EQ(complete.num_max_com(), 1);
  EXPECT_EQ(complete.max_swap_times(), 100);
  EXPECT_EQ(complete.swap_gain(), 0.01);
  EXPECT_EQ(complete.change_threshold(), 0.95);
}

}  // namespace
}  // namespace epsim
