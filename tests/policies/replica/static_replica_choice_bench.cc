#include <vector>

#include "benchmark/benchmark.h"
#include "engine/random_stream.h"
#include "policies/placement/eplb_placement.h"
#include "policies/replica/static_replica_choice.h"

namespace epsim {
namespace {

// The table of one placement: 58 layers of 256 experts, 320 slots on 64 ranks of 8 nodes.
void StaticReplicas(benchmark::State& state) {
  const PlacementShape shape{.layers = 58, .experts = 256, .slots = 320, .ranks = 64, .nodes = 8};
  RandomStream random(1, "static_replica_choice_bench");
  std::vector<float> weight(shape.layers * shape.experts);
  for (float& load : weight) load = static_cast<float>(1 / (0.05 + random.Unit()));
  const Placement placement = Eplb(weight, shape, EplbPlacement::GLOBAL);
  const auto choice = NewStaticReplicaChoice();
  for (auto _ : state) benchmark::DoNotOptimize(choice->Choose(placement, &random));
}
BENCHMARK(StaticReplicas)->Name("StaticReplicas/58x256_320_64")->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace epsim
