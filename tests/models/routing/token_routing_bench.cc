// The hot loop of a replay, at 64 ranks, 256 experts, top-8 and 8,192 tokens a step.  One routed id is one item.
//
// 288 slots cannot lie evenly on 64 ranks; the next number that can is taken, 320: five a rank, one of them redundant.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "benchmark/benchmark.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "engine/units.h"
#include "models/routing/dealt_routing.h"
#include "models/routing/token_routing.h"
#include "policies/replica/replica_choice.h"
#include "tests/bench_trace.h"
#include "traces/format/trace_reader.h"
#include "traces/workload/step_source.h"

namespace epsim {
namespace {

using namespace bench_trace;
constexpr int kSlots = 320;
constexpr size_t kLayersInMemory = 8;

PlacementShape Shape(int layers) {
  PlacementShape shape;
  shape.layers = layers;
  shape.experts = kExperts;
  shape.slots = kSlots;
  shape.ranks = kRanks;
  shape.nodes = kRanks / 8;
  return shape;
}

// Of one layer, the second copy's slot of each expert, -1 where it has none: four experts a rank, and a second copy of
// 64 experts, drawn for the layer, one a rank.
std::array<int, kExperts> DrawCopies(RandomStream* random) {
  std::array<int, kExperts> order;
  for (size_t e = 0; e < kExperts; ++e) order[e] = static_cast<int>(e);
  for (size_t e = kExperts; e > 1; --e) std::swap(order[e - 1], order[random->Below(e)]);
  std::array<int, kExperts> copy;
  copy.fill(-1);
  for (int r = 0; r < kRanks; ++r) copy[static_cast<size_t>(order[static_cast<size_t>(r)])] = r * 5 + 4;
  return copy;
}

// A source uses the copy that it holds, if any, else one of the two, drawn once.
ReplicaTable Table(int layers) {
  RandomStream random(1, "token_routing_bench/table");
  ReplicaTable table{layers, kRanks, kExperts, {}};
  for (int l = 0; l < layers; ++l) {
    const std::array<int, kExperts> copy = DrawCopies(&random);
    for (int source = 0; source < kRanks; ++source) {
      for (int e = 0; e < kExperts; ++e) {
        const int original = e / 4 * 5 + e % 4, second = copy[static_cast<size_t>(e)];
        const bool drawn = second >= 0 && random.Below(2) == 1;
        const bool use_second = second >= 0 && original / 5 != source && (drawn || second / 5 == source);
        table.slot.push_back(static_cast<uint16_t>(use_second ? second : original));
      }
    }
  }
  return table;
}

Placement TwoCopies(int layers) {
  RandomStream random(1, "token_routing_bench/table");
  std::vector<LogicalExpert> experts(static_cast<size_t>(layers) * kSlots);
  for (int l = 0; l < layers; ++l) {
    const std::array<int, kExperts> copy = DrawCopies(&random);
    LogicalExpert* const of_layer = &experts[static_cast<size_t>(l) * kSlots];
    for (int e = 0; e < kExperts; ++e) {
      of_layer[e / 4 * 5 + e % 4] = LogicalExpert(e);
      if (copy[static_cast<size_t>(e)] >= 0) of_layer[copy[static_cast<size_t>(e)]] = LogicalExpert(e);
    }
  }
  return Placement(Shape(layers), std::move(experts));
}

// [layers, tokens, top_k]
const std::vector<uint8_t>& IdsInMemory() {
  static const auto* const ids = [] {
    RandomStream random(1, "token_routing_bench/ids");
    auto* drawn = new std::vector<uint8_t>(kLayersInMemory * kLayerIds);
    for (size_t l = 0; l < kLayersInMemory; ++l) {
      const SkewedIds skewed(&random);
      for (size_t t = 0; t < kTokens; ++t) skewed.Draw(&random, &(*drawn)[l * kLayerIds + t * kTopK]);
    }
    return drawn;
  }();
  return *ids;
}

// The yardstick: how often each byte occurs, layer by layer.  Eight bytes a load, and four tables, so that equal bytes
// near each other do not wait for one another.
void ByteHistogram(benchmark::State& state) {
  const std::vector<uint8_t>& ids = IdsInMemory();
  for (auto _ : state) {
    for (size_t l = 0; l < kLayersInMemory; ++l) {
      uint32_t count[4][256] = {};
      for (size_t i = l * kLayerIds; i < (l + 1) * kLayerIds; i += 8) {
        uint64_t word;
        std::memcpy(&word, &ids[i], sizeof(word));
        ++count[0][word & 0xff];
        ++count[1][word >> 8 & 0xff];
        ++count[2][word >> 16 & 0xff];
        ++count[3][word >> 24 & 0xff];
        ++count[0][word >> 32 & 0xff];
        ++count[1][word >> 40 & 0xff];
        ++count[2][word >> 48 & 0xff];
        ++count[3][word >> 56];
      }
      for (size_t i = 0; i < 256; ++i) count[0][i] += count[1][i] + count[2][i] + count[3][i];
      benchmark::DoNotOptimize(&count[0]);
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(ByteHistogram);

StepBatch BatchInMemory() {
  StepBatch batch;
  batch.tokens = kTokens;
  for (int r = 0; r <= kRanks; ++r) batch.rank_begin.push_back(r * (kTokens / kRanks));
  batch.layers = kLayersInMemory;
  batch.top_k = kTopK;
  batch.ids = reinterpret_cast<const std::byte*>(IdsInMemory().data());
  batch.layer_stride = kLayerIds;
  return batch;
}

// Ids in memory to tokens per slot and de-duplicated traffic; with `detail`, also to pairs and to nodes.
void RouteInMemory(benchmark::State& state) {
  const InstructionSet set = static_cast<InstructionSet>(state.range(1));
  const std::vector<InstructionSet> supported = SupportedInstructionSets();
  if (std::find(supported.begin(), supported.end(), set) == supported.end()) {
    state.SkipWithError("this machine has no such instruction set");
    return;
  }
  state.SetLabel(InstructionSetName(set));
  const std::vector<uint8_t>& ids = IdsInMemory();
  const ReplicaTable table = Table(kLayersInMemory);
  const RoutingDetail detail{.pairs_between = state.range(2) != 0, .tokens_to_node = state.range(2) != 0};
  const auto routing = NewTokenRouting(Shape(kLayersInMemory), table, detail, set);
  const StepBatch batch = BatchInMemory();
  const TokenRange whole = WholeBatch(batch);
  RoutedLayer routed;
  for (auto _ : state) {
    for (int l = 0; l < static_cast<int>(kLayersInMemory); ++l) {
      routing->Count(batch, whole, Layer(l), &routed);
      benchmark::DoNotOptimize(routed.tokens_per_slot.data());
      benchmark::DoNotOptimize(routed.tokens_between.data());
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(ids.size()));
}
BENCHMARK(RouteInMemory)
    ->Name("TokenRouting")
    ->ArgNames({"ranks", "set", "detail"})
    ->ArgsProduct({{kRanks},
                   {static_cast<int64_t>(InstructionSet::kPortable), static_cast<int64_t>(InstructionSet::kAvx512)},
                   {0, 1}});

// The same ids to the same counts where a choice deals every pair: what it decides, writes down and has counted.
void DealInMemory(benchmark::State& state, const char* name) {
  ReplicaChoiceConfig config;
  config.GetReflection()->MutableMessage(&config, config.GetDescriptor()->FindFieldByName(name));
  const std::unique_ptr<ReplicaChoice> choice = NewReplicaChoice(config).value();
  const Placement placement = TwoCopies(kLayersInMemory);
  const auto routing = NewDealtRouting(placement, *choice->per_call(), 1);
  const StepBatch batch = BatchInMemory();
  const TokenRange whole = WholeBatch(batch);
  RoutedLayer routed;
  for (auto _ : state) {
    for (int l = 0; l < static_cast<int>(kLayersInMemory); ++l) {
      routing->Count(batch, whole, Layer(l), &routed);
      benchmark::DoNotOptimize(routed.tokens_between.data());
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(state.iterations() * static_cast<int64_t>(IdsInMemory().size()));
}
BENCHMARK_CAPTURE(DealInMemory, dynamic, "dynamic")->Name("DealtRouting/dynamic");
BENCHMARK_CAPTURE(DealInMemory, round_robin, "round_robin")->Name("DealtRouting/round_robin");
BENCHMARK_CAPTURE(DealInMemory, least_loaded, "least_loaded")->Name("DealtRouting/least_loaded");
BENCHMARK_CAPTURE(DealInMemory, lp, "lp")->Name("DealtRouting/lp");

// Opens the trace, takes each step from the source and counts every layer.  Returns the ids routed.
absl::StatusOr<int64_t> RouteTrace(const BenchTrace& trace, const TokenRouting& routing) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TraceReader> reader,
                   TraceReader::OpenRaw(trace.path(), trace.folder(), StopToken()));
  WorkloadConfig workload;
  workload.mutable_recorded();
  ASSIGN_OR_RETURN(const std::unique_ptr<StepSource> source, NewStepSource(workload, *reader, kRanks, 1));
  int64_t ids = 0;
  RoutedLayer routed;
  for (;;) {
    ASSIGN_OR_RETURN(const StepBatch* const batch, source->Next(SimTime()));
    if (batch == nullptr) return ids;
    const TokenRange whole = WholeBatch(*batch);
    for (int l = 0; l < batch->layers; ++l) {
      routing.Count(*batch, whole, Layer(l), &routed);
      benchmark::DoNotOptimize(routed.tokens_between.data());
      ids += routed.pairs;
    }
  }
}

// From an .eptrace in the page cache to tokens per slot and de-duplicated traffic.  Each pass opens the file anew, so
// that it pays for the checksum of every chunk and the check of every id, as a run does.
void RoutedIds(benchmark::State& state) {
  const BenchTrace& trace = BenchTrace::Get();
  const ReplicaTable table = Table(kLayers);
  const auto routing = NewTokenRouting(Shape(kLayers), table);
  int64_t ids = 0;
  for (auto _ : state) {
    const absl::StatusOr<int64_t> pass = RouteTrace(trace, *routing);
    if (!pass.ok()) {
      state.SkipWithError(std::string(pass.status().message()).c_str());
      return;
    }
    ids += *pass;
  }
  EPSIM_CHECK(ids == state.iterations() * int64_t{kSteps} * kLayers * static_cast<int64_t>(kLayerIds));
  state.SetItemsProcessed(ids);
}
BENCHMARK(RoutedIds)->ArgName("ranks")->Arg(kRanks);

}  // namespace
}  // namespace epsim
