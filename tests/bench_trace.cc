#include "tests/bench_trace.h"

#include <cstdlib>
#include <memory>
#include <system_error>
#include <utility>
#include <vector>

#include "engine/check.h"
#include "traces/format/trace_writer.h"

namespace epsim::bench_trace {

SkewedIds::SkewedIds(RandomStream* random) {
  std::array<uint8_t, kExperts> order;
  for (size_t e = 0; e < kExperts; ++e) order[e] = static_cast<uint8_t>(e);
  for (size_t e = kExperts; e > 1; --e) std::swap(order[e - 1], order[random->Below(e)]);
  double sum = 0, reached = 0;
  for (size_t e = 0; e < kExperts; ++e) sum += Weight(e);
  size_t place = 0;
  for (size_t i = 0; i < expert_of_draw_.size(); ++i) {
    while (place + 1 < kExperts &&
           reached + Weight(place) < sum * (static_cast<double>(i) + 0.5) / static_cast<double>(kDraws)) {
      reached += Weight(place++);
    }
    expert_of_draw_[i] = order[place];
  }
}

const BenchTrace& BenchTrace::Get() {
  static const BenchTrace trace;
  return trace;
}

BenchTrace::BenchTrace() {
  std::string folder = (std::filesystem::temp_directory_path() / "epsim_bench_XXXXXX").string();
  EPSIM_CHECK(mkdtemp(folder.data()) != nullptr);
  folder_ = folder;
  TraceHeader header;
  header.set_model("deepseek-v3");
  header.set_layers(kLayers);
  header.set_experts(kExperts);
  header.set_top_k(kTopK);
  header.set_id_bytes(1);
  header.set_granularity(STEP);
  header.set_source_ranks(kRanks);
  header.set_synthetic("bench_trace: skewed, independent tokens");
  TraceWriterOptions options;
  options.zstd = false;
  const std::unique_ptr<TraceWriter> writer = TraceWriter::Create(path(), header, options).value();
  RandomStream random(1, "bench_trace");
  std::vector<SkewedIds> layers;
  for (int l = 0; l < kLayers; ++l) layers.emplace_back(&random);
  std::vector<uint16_t> source_rank;
  for (int t = 0; t < kTokens; ++t) source_rank.push_back(static_cast<uint16_t>(t / (kTokens / kRanks)));
  TokenColumns columns;
  columns.source_rank = source_rank;
  std::vector<int32_t> ids(kLayers * kLayerIds);
  for (int step = 0; step < kSteps; ++step) {
    for (size_t l = 0; l < kLayers; ++l) {
      for (size_t t = 0; t < kTokens; ++t) layers[l].Draw(&random, &ids[l * kLayerIds + t * kTopK]);
    }
    EPSIM_CHECK(writer->AppendStep({}, ids, columns).ok());
  }
  EPSIM_CHECK(writer->Finish().ok());
}

BenchTrace::~BenchTrace() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

}  // namespace epsim::bench_trace
