// Does what policies are told of the exchange agree with the exchange that the simulation makes?
#include "models/costs/cost_view.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"
#include "models/communication/exchange.h"
#include "models/routing/token_routing.h"
#include "policies/placement/layer_prediction.h"
#include "tests/models/communication/site.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

ExchangeCost Learn(const Site& site, const std::string& communication) {
  return LearnExchangeCost(site.cluster, *site.Make(communication).value()).value();
}

// NVLink of 100 GB/s and 1 us, NICs of 10 GB/s and 2 us.  A copy is 1024 * 2 B both ways: 20.48 ns and 204.8 ns each.
TEST(LearnExchangeCost, OfAllToAll) {
  const Site site(4, 2, 1024, 8, 2);
  const ExchangeCost cost = Learn(site, "all_to_all {}");
  EXPECT_EQ(cost.copies, ExchangeCost::Copies::kOncePerRank);
  for (const std::vector<PortTime>& ports : {cost.sending, cost.receiving}) {
    ASSERT_EQ(ports.size(), 4u);
    for (const PortTime& port : ports) {
      EXPECT_NEAR(port.node_ps, 2 * 20'480, 1e-6);
      EXPECT_EQ(port.through_ps, 0);
      EXPECT_NEAR(port.network_ps, 2 * 204'800, 1e-6);
    }
  }
  EXPECT_EQ(cost.node_latency, std::chrono::microseconds(2));
  EXPECT_EQ(cost.network_latency, std::chrono::microseconds(4));
}

// A slow way into one rank: its dispatch comes and its results from elsewhere come that way; 204.8 ns become 2048.
TEST(LearnExchangeCost, KnowsSlowLinks) {
  PlatformSpec platform = Parse<PlatformSpec>(R"(
      gpu { name: "GPU" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "1 PFLOP/s" sms: 100 compute_capability: 90 }
      gpus_per_node: 2 nvlink { bandwidth: "100 GB/s" latency: "1 us" } nic { bandwidth: "10 GB/s" latency: "2 us" })");
  Site site(platform, 4, 1024, 8, 2);
  site.cluster =
      Cluster::Create(platform, 4, Parse<ClusterOverrides>(R"(link { name: "nic 3 in" bandwidth: "1 GB/s" })")).value();
  const ExchangeCost cost = Learn(site, "all_to_all {}");
  EXPECT_NEAR(cost.receiving[3].network_ps, 2'048'000 + 204'800, 1e-6);
  EXPECT_NEAR(cost.sending[3].network_ps, 2'048'000 + 204'800, 1e-6);
  EXPECT_NEAR(cost.receiving[2].network_ps, 2 * 204'800, 1e-6);
}

// Without NVLink, two GPUs share a NIC, which they reach over PCIe.  Every rank sends one copy: two cross the NIC.
TEST(LearnExchangeCost, KnowsWhatRanksShareAndPassThrough) {
  const PlatformSpec platform = Parse<PlatformSpec>(R"(
      gpu { name: "GPU" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "1 PFLOP/s" sms: 100 compute_capability: 90 }
      gpus_per_node: 2 pcie { bandwidth: "20 GB/s" latency: "1 us" }
      nic { bandwidth: "10 GB/s" latency: "2 us" per_node: 1 over_pcie: true })");
  const ExchangeCost cost = Learn(Site(platform, 4, 1024, 8, 2), "all_to_all {}");
  EXPECT_NEAR(cost.sending[0].node_ps, 2 * 102'400, 1e-6);
  EXPECT_NEAR(cost.sending[0].through_ps, 2 * 102'400, 1e-6);
  EXPECT_NEAR(cost.sending[0].network_ps, 2 * 2 * 204'800, 1e-6);
}

TEST(LearnExchangeCost, KnowsHowOftenTokensTravel) {
  const Site site(16, 8, 2048, 32, 4);
  EXPECT_EQ(Learn(site, "deepep_normal {}").copies, ExchangeCost::Copies::kOncePerNode);
  EXPECT_EQ(Learn(site, "deepep_low_latency {}").copies, ExchangeCost::Copies::kOncePerExpert);
  EXPECT_EQ(Learn(site, "nccl_all_to_all {}").copies, ExchangeCost::Copies::kOncePerExpert);
}

TEST(LearnExchangeCost, NothingWherePlacementDoesNotMatter) {
  const Site site(16, 8, 2048, 32, 4);
  for (const char* communication : {"allgather_reducescatter {}", "all_reduce {}"}) {
    EXPECT_EQ(LearnExchangeCost(site.cluster, *site.Make(communication).value()).has_value(), false) << communication;
  }
  const Site alone(1, 8, 1024, 32, 4);
  EXPECT_FALSE(LearnExchangeCost(alone.cluster, *alone.Make("all_to_all {}").value()).has_value());
}

// The prediction of a policy against the exchange itself, for tokens that every rank has alike: one of each on each
// rank, in the sample one of each on each node.
class PredictedExchange : public testing::TestWithParam<std::string> {
 protected:
  static constexpr int kRanks = 16, kNodes = 2, kExperts = 64, kTopK = 4, kTokens = 300;
  static constexpr PlacementShape kShape{
      .layers = 1, .experts = kExperts, .slots = kExperts, .ranks = kRanks, .nodes = kNodes};

  PredictedExchange() {
    RandomStream random(1, "tokens");
    for (int i = 0; i < kExperts; ++i) experts_.push_back(LogicalExpert(i * 7 % kExperts));
    for (int token = 0; token < kTokens; ++token) {
      std::vector<bool> taken(kExperts);
      for (int k = 0; k < kTopK;) {
        const auto expert = static_cast<uint16_t>(random.Below(1 + random.Below(kExperts)));
        if (taken[expert]) continue;
        taken[expert] = true;
        tokens_.push_back(expert);
        ++k;
      }
    }
  }

  static Site MakeSite(const std::string& fabric) {
    return Site(Parse<PlatformSpec>(R"(
        gpu { name: "GPU" memory: "80 GB" memory_bandwidth: "1 TB/s" bf16: "1 PFLOP/s" sms: 100 compute_capability: 90 }
        gpus_per_node: 8 nvlink { bandwidth: "200 GB/s" latency: "1 us" } pcie { bandwidth: "64 GB/s" latency: "1 us" }
        nic { bandwidth: "50 GB/s" latency: "2 us" over_pcie: true } )" +
                                    fabric),
                kRanks, 2048, kExperts, kTopK);
  }

  // Experts and the wires of dispatch and combine.
  double Simulated(const Site& site, const Communication& communication, const CostModel& costs) const {
    const Placement placement(kShape, experts_);
    ReplicaTable table{.layers = 1, .ranks = kRanks, .experts = kExperts, .slot = {}};
    StepBatch batch;
    std::vector<uint16_t> ids;
    batch.rank_begin = {0};
    for (int rank = 0; rank < kRanks; ++rank) {
      for (int expert = 0; expert < kExperts; ++expert) {
        table.slot.push_back(static_cast<uint16_t>(Index(placement.replicas(Layer(0), LogicalExpert(expert))[0])));
      }
      ids.insert(ids.end(), tokens_.begin(), tokens_.end());
      batch.rank_begin.push_back((rank + 1) * kTokens);
    }
    batch.tokens = kRanks * kTokens;
    batch.layers = 1;
    batch.top_k = kTopK;
    batch.id_bytes = 2;
    batch.ids = reinterpret_cast<const std::byte*>(ids.data());
    RoutedLayer routed;
    NewTokenRouting(kShape, table, {.pairs_between = true, .tokens_to_node = true})
        ->Count(batch, WholeBatch(batch), Layer(0), &routed);
    Exchange dispatch, combine;
    communication.Dispatch(routed, &dispatch);
    communication.Combine(routed, &combine);
    Duration time{};
    for (Exchange* exchange : {&dispatch, &combine}) {
      exchange->launch = exchange->floor = {};
      std::fill(exchange->busy.begin(), exchange->busy.end(), Duration{});
      time += LoneExchangeTime(site.cluster, *exchange);
    }
    Duration longest{};
    const int slots = kShape.slots_per_rank();
    for (int rank = 0; rank < kRanks; ++rank) {
      const auto of_rank = absl::MakeConstSpan(routed.tokens_per_slot).subspan(rank * slots, slots);
      longest = std::max(longest, costs.RoutedExperts(of_rank).time);
    }
    return static_cast<double>((longest + time).count());
  }

  double Predicted(const Site& site, const Communication& communication, const CostModel& costs) const {
    std::vector<uint16_t> sample;
    for (int token = 0; token < kTokens; ++token) {
      for (int node = 0; node < kNodes; ++node) {
        sample.insert(sample.end(), tokens_.begin() + token * kTopK, tokens_.begin() + (token + 1) * kTopK);
      }
    }
    std::vector<double> load(kExperts);
    for (uint16_t expert : tokens_) load[expert] += kRanks;
    const CoActivation co_activation{.layers = 1, .tokens = kNodes * kTokens, .top_k = kTopK, .experts = sample};
    const ModelCostView view(costs, nullptr, LearnExchangeCost(site.cluster, communication));
    PlacementRequest request;
    request.window = {.rows = 1, .layers = 1, .experts = kExperts, .tokens = load};
    request.cost = &view;
    request.co_activation = &co_activation;
    LayerPrediction prediction(kShape, request);
    prediction.Begin(Layer(0), experts_);
    return prediction.time();
  }

  std::vector<LogicalExpert> experts_;
  std::vector<uint16_t> tokens_;
};

// Every link is of one rank: the same to a picosecond or two of rounding each.
TEST_P(PredictedExchange, IsThatOfTheNetwork) {
  const Site site = MakeSite("");
  const std::unique_ptr<Communication> communication = site.Make(GetParam()).value();
  const std::unique_ptr<CostModel> costs = RoundCosts();
  EXPECT_NEAR(Predicted(site, *communication, *costs), Simulated(site, *communication, *costs), 10);
}

// The ranks of a node share the uplink of their leaf.  What it carries is the sum over its ranks; the prediction takes
// the busiest of them for all, so that it is longer, here by up to 1.9 of skew.
TEST_P(PredictedExchange, TakesSharersForAlike) {
  const Site site = MakeSite(R"(fabric { wiring: FAT_TREE leaf { nodes: 1 oversubscription: 3 latency: "1 us" } })");
  const std::unique_ptr<Communication> communication = site.Make(GetParam()).value();
  const std::unique_ptr<CostModel> costs = RoundCosts();
  const double simulated = Simulated(site, *communication, *costs);
  EXPECT_GE(Predicted(site, *communication, *costs), simulated - 10);
  EXPECT_LE(Predicted(site, *communication, *costs), 1.9 * simulated);
}

INSTANTIATE_TEST_SUITE_P(Strategies, PredictedExchange,
                         testing::Values("all_to_all {}", "deepep_normal {}", "deepep_low_latency {}"));

}  // namespace
}  // namespace epsim
