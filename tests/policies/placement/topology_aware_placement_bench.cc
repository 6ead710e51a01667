#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/layer_prediction.h"
#include "policies/placement/topology_aware_placement.h"

namespace epsim {
namespace {

constexpr PlacementShape kShape{
    .layers = 58, .experts = 256, .slots = 288, .ranks = 32, .nodes = 4, .expert_groups = 8};
constexpr int kTopK = 8, kTokens = 4096;

// An H100-like rank: experts take as long as their weights or their tokens, and a little for each that is active.
class BenchCosts final : public CostView {
 public:
  BenchCosts() {
    exchange_.copies = ExchangeCost::Copies::kOncePerNode;
    exchange_.sending.assign(kShape.ranks, {.node_ps = 48'000, .through_ps = 0, .network_ps = 430'000});
    exchange_.receiving = exchange_.sending;
  }
  Duration ExpertTime(Layer, absl::Span<const LogicalExpert>,
                      absl::Span<const int32_t> tokens_per_slot) const override {
    int64_t time = 0;
    for (int64_t tokens : tokens_per_slot) time += tokens > 0 ? std::max<int64_t>(14'000'000, 110'000 * tokens) : 0;
    return Duration(time);
  }
  const ExchangeCost* exchange() const override { return &exchange_; }

 private:
  ExchangeCost exchange_;
};

// Tokens that choose their experts from a Zipf law of exponent 0.6, hot ones anywhere, half of them near each other.
std::vector<uint16_t> SkewedTokens() {
  RandomStream random(1, "topology_aware_placement_bench");
  std::vector<uint16_t> sample;
  for (int layer = 0; layer < kShape.layers; ++layer) {
    std::vector<int> order(kShape.experts);
    for (int i = 0; i < kShape.experts; ++i) order[i] = i;
    for (int i = kShape.experts - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
    for (int token = 0; token < kTokens; ++token) {
      std::vector<bool> taken(kShape.experts);
      const auto topic = random.Below(8);
      for (int k = 0; k < kTopK;) {
        auto expert = static_cast<int>(std::pow(random.Unit(), 2.5) * kShape.experts);
        if (k % 2 == 0) expert = static_cast<int>((expert / 8 * 8 + topic) % kShape.experts);
        if (taken[expert]) continue;
        taken[expert] = true;
        sample.push_back(static_cast<uint16_t>(order[expert]));
        ++k;
      }
    }
  }
  return sample;
}

// Rows as such tokens load them.
std::vector<double> Window(const std::vector<uint16_t>& sample, int rows) {
  std::vector<double> window(static_cast<size_t>(rows) * kShape.layers * kShape.experts);
  for (size_t i = 0; i < sample.size(); ++i) {
    const size_t token = i / kTopK % kTokens, layer = i / kTopK / kTokens;
    window[(token % rows * kShape.layers + layer) * kShape.experts + sample[i]] += 8;
  }
  return window;
}

void Place(benchmark::State& state, PlacementPolicy& policy, int rows, bool by_time) {
  const std::vector<uint16_t> sample = SkewedTokens();
  const std::vector<double> tokens = Window(sample, rows);
  const BenchCosts costs;
  const CoActivation co_activation{.layers = kShape.layers, .tokens = kTokens, .top_k = kTopK, .experts = sample};
  RandomStream random(1, "placement");
  PlacementRequest request;
  request.window = {.rows = rows, .layers = kShape.layers, .experts = kShape.experts, .tokens = tokens};
  request.random = &random;
  if (by_time) {
    request.cost = &costs;
    request.co_activation = &co_activation;
  }
  Placement placement;
  for (auto _ : state) placement = policy.Place(request).value();
  if (!by_time) return;
  // How much faster the layers are predicted to be than EPLB's.
  const std::vector<double> total = request.window.Total();
  const Placement eplb = Eplb(std::vector<float>(total.begin(), total.end()), kShape, EplbPlacement::GLOBAL);
  LayerPrediction prediction(kShape, request);
  double own_time = 0, eplb_time = 0;
  for (int layer = 0; layer < kShape.layers; ++layer) {
    prediction.Begin(Layer(layer), placement.experts_of_slots(Layer(layer)));
    own_time += prediction.time();
    prediction.Place(eplb.experts_of_slots(Layer(layer)));
    eplb_time += prediction.time();
  }
  state.counters["predicted_over_eplb"] = own_time / eplb_time;
}

// Beside Placement/topology_aware, which goes by load alone: it has no cost view.
void TopologyAware(benchmark::State& state) { Place(state, *NewTopologyAwarePlacement(kShape).value(), 1, true); }
BENCHMARK(TopologyAware)->Name("Placement/topology_aware_by_time")->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace epsim
