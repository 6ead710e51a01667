// The planning of a layer by the counts of its batch: 256 experts, one redundant slot a rank, 1,024 tokens of top-8 a
// rank.  The placement is EPLB's for past loads, from which the loads of each of 16 layers differ.
#include <algorithm>
#include <cmath>
#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/eplb_placement.h"
#include "policies/replica/pair_deal.h"
#include "policies/replica/replica_split.h"

namespace epsim {
namespace {

constexpr int kLayers = 16, kExperts = 256, kPairsPerRank = 1024 * 8;

class PlannedLayers {
 public:
  explicit PlannedLayers(int ranks) {
    RandomStream random(1, "replica_split_bench");
    const int slots = (kExperts + ranks - 1) / ranks * ranks + ranks;
    const PlacementShape shape{.layers = kLayers, .experts = kExperts, .slots = slots, .ranks = ranks, .nodes = 4};
    std::vector<float> past(static_cast<size_t>(kLayers) * kExperts);
    for (float& load : past) load = static_cast<float>(1 / (0.05 + random.Unit()));
    placement_ = Eplb(past, shape, EplbPlacement::GLOBAL);
    for (int layer = 0; layer < kLayers; ++layer) {
      std::vector<double> up_to;
      double sum = 0;
      for (int e = 0; e < kExperts; ++e) up_to.push_back(sum += past[layer * kExperts + e] * std::exp(random.Unit()));
      std::vector<int32_t>& pairs = pairs_.emplace_back(static_cast<size_t>(ranks) * kExperts);
      for (int rank = 0; rank < ranks; ++rank) {
        for (int i = 0; i < kPairsPerRank; ++i) {
          const auto drawn = std::upper_bound(up_to.begin(), up_to.end(), random.Unit() * sum) - up_to.begin();
          ++pairs[rank * kExperts + std::min<std::ptrdiff_t>(drawn, kExperts - 1)];
        }
      }
    }
  }

  const std::vector<int32_t>& pairs(int layer) const { return pairs_[layer]; }
  ReplicaSplit Split(int layer) const {
    ReplicaSplit split(placement_, Layer(layer), SumOverSources(pairs_[layer], kExperts));
    split.DealToLeastLoaded();
    return split;
  }
  const PlacementShape& shape() const { return placement_.shape(); }

 private:
  Placement placement_;
  std::vector<std::vector<int32_t>> pairs_;  // [layers], [ranks, experts]
};

// From pairs of each source and expert to pairs of each source and replica, of one layer.
void LpReplica(benchmark::State& state) {
  const PlannedLayers layers(static_cast<int>(state.range(0)));
  int layer = 0;
  for (auto _ : state) {
    ReplicaSplit split = layers.Split(layer);
    split.LowerMaximum();
    PairDeal deal(split, layers.pairs(layer));
    deal.InProportion();
    benchmark::DoNotOptimize(&deal);
    layer = (layer + 1) % kLayers;
  }
}
BENCHMARK(LpReplica)->ArgName("ranks")->Arg(32)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

void LeastLoadedReplica(benchmark::State& state) {
  const PlannedLayers layers(static_cast<int>(state.range(0)));
  int layer = 0;
  for (auto _ : state) {
    const ReplicaSplit split = layers.Split(layer);
    PairDeal deal(split, layers.pairs(layer));
    deal.PreferNear(layers.shape());
    benchmark::DoNotOptimize(&deal);
    layer = (layer + 1) % kLayers;
  }
}
BENCHMARK(LeastLoadedReplica)->ArgName("ranks")->Arg(32)->Arg(64)->Arg(256)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
