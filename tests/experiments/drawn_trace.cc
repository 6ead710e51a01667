#include "tests/experiments/drawn_trace.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "engine/random_stream.h"
#include "gtest/gtest.h"
#include "traces/format/trace_writer.h"

namespace epsim {
namespace {

constexpr int kLayers = DrawnToken::kLayers, kExperts = DrawnToken::kExperts, kTopK = DrawnToken::kTopK;
constexpr int kHottest[kLayers] = {0, 11};

int Between(int least, int most, RandomStream& random) {
  return least + static_cast<int>(random.Below(static_cast<uint64_t>(most - least + 1)));
}

std::array<int32_t, kTopK> DrawExperts(int layer, double skew, RandomStream& random) {
  std::array<int32_t, kTopK> ids;
  for (int k = 0; k < kTopK;) {
    const int place = Between(0, kExperts - 1, random), expert = (place + kHottest[layer]) % kExperts;
    const double weight = 1 + (skew - 1) * (kExperts - 1 - place) / (kExperts - 1);
    if (random.Unit() * skew > weight || std::count(ids.begin(), ids.begin() + k, expert) > 0) continue;
    ids[k++] = expert;
  }
  return ids;
}

std::unique_ptr<TraceWriter> NewWriter(Granularity granularity, int source_ranks, const std::string& path,
                                       const TraceForm& form) {
  TraceHeader header;
  header.set_model("small");
  header.set_layers(kLayers);
  header.set_experts(kExperts);
  header.set_top_k(kTopK);
  header.set_id_bytes(static_cast<uint32_t>(form.id_bytes));
  header.set_granularity(granularity);
  header.set_source_ranks(static_cast<uint32_t>(source_ranks));
  header.set_source("a test");
  return TraceWriter::Create(path, header, {.zstd = form.zstd, .chunk_bytes = form.chunk_bytes}).value();
}

}  // namespace

DrawnTrace Draw(const DrawRules& rules) {
  RandomStream random(rules.seed, "drawn_trace");
  std::set<decltype(DrawnToken::ids)> taken;
  DrawnTrace trace(rules.parts);
  for (std::vector<DrawnToken>& part : trace) {
    part.resize(Between(rules.least_tokens, rules.most_tokens, random));
    const size_t prefill = Between(0, rules.most_prefill, random);
    for (size_t t = 0; t < part.size(); ++t) {
      DrawnToken& token = part[t];
      token.source = static_cast<uint16_t>(Between(0, rules.sources, random) % rules.sources);
      do {
        for (int layer = 0; layer < kLayers; ++layer) {
          token.ids[layer] = DrawExperts(layer, rules.skew, random);
          for (int32_t& id : token.ids[layer]) {
            if (rules.ragged && random.Unit() < 0.3) id = -1;
          }
          // As a file holds them: those that there are first.
          std::stable_partition(token.ids[layer].begin(), token.ids[layer].end(), [](int32_t id) { return id >= 0; });
        }
      } while (!taken.insert(token.ids).second);
    }
    std::stable_sort(part.begin(), part.end(),
                     [](const DrawnToken& a, const DrawnToken& b) { return a.source < b.source; });
    for (size_t t = 0; t < part.size(); ++t) part[t].prefill = t < prefill;
  }
  return trace;
}

std::vector<uint32_t> ExpertLoad(const std::vector<DrawnToken>& tokens) {
  std::vector<uint32_t> load(kLayers * kExperts);
  for (const DrawnToken& token : tokens) {
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const int32_t id : token.ids[layer]) {
        if (id >= 0) ++load[layer * kExperts + id];
      }
    }
  }
  return load;
}

void WriteRequests(const DrawnTrace& requests, const std::string& path, const TraceForm& form) {
  const auto writer = NewWriter(REQUEST, 0, path, form);
  for (size_t request = 0; request < requests.size(); ++request) {
    RequestInfo info;
    info.set_id(request);
    info.set_tokens(static_cast<int64_t>(requests[request].size()));
    info.set_prompt_tokens(100);
    std::vector<int32_t> ids;
    std::vector<uint32_t> position, index;
    std::vector<uint8_t> phase;
    for (const DrawnToken& token : requests[request]) {
      for (const auto& layer : token.ids) ids.insert(ids.end(), layer.begin(), layer.end());
      position.push_back(static_cast<uint32_t>(100 + position.size()));
      index.push_back(static_cast<uint32_t>(request));
      phase.push_back(token.prefill ? PREFILL : DECODE);
    }
    TokenColumns columns;
    columns.position = position;
    columns.request_index = index;
    columns.phase = phase;
    const absl::Status status = writer->AppendRequest(info, ids, columns);
    ASSERT_TRUE(status.ok()) << status;
  }
  ASSERT_TRUE(writer->Finish().ok());
}

void WriteSteps(const DrawnTrace& steps, int source_ranks, const std::string& path, const TraceForm& form) {
  const auto writer = NewWriter(STEP, source_ranks, path, form);
  for (const std::vector<DrawnToken>& step : steps) {
    std::vector<int32_t> ids;
    for (int layer = 0; layer < kLayers; ++layer) {
      for (const DrawnToken& token : step) ids.insert(ids.end(), token.ids[layer].begin(), token.ids[layer].end());
    }
    std::vector<uint16_t> source;
    for (const DrawnToken& token : step) source.push_back(token.source);
    std::vector<uint32_t> position;
    std::vector<uint8_t> phase;
    for (const DrawnToken& token : step) {
      position.push_back(500 + (token.prefill ? static_cast<uint32_t>(position.size()) : 0));
      phase.push_back(token.prefill ? PREFILL : DECODE);
    }
    TokenColumns columns;
    columns.position = position;
    columns.phase = phase;
    columns.source_rank = source;
    const absl::Status status = writer->AppendStep({}, ids, columns);
    ASSERT_TRUE(status.ok()) << status;
  }
  ASSERT_TRUE(writer->Finish().ok());
}

void WriteCounts(const DrawnTrace& steps, const std::string& path, const TraceForm& form) {
  const auto writer = NewWriter(COUNTS, 0, path, form);
  for (const std::vector<DrawnToken>& step : steps) ASSERT_TRUE(writer->AppendCounts(ExpertLoad(step)).ok());
  ASSERT_TRUE(writer->Finish().ok());
}

}  // namespace epsim
