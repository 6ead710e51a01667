// Traces of random content for tests, and what a reader should give back.
#pragma once

#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "engine/random_stream.h"
#include "gtest/gtest.h"
#include "traces/format/trace_reader.h"
#include "traces/format/trace_writer.h"

namespace epsim {

// A folder that goes away with the test; in memory where the machine has such a place, because every finished trace is
// synced to disk, which is slow where there is one.
class ScratchFolder {
 public:
  ScratchFolder() {
    static int count = 0;
    const auto* test = ::testing::UnitTest::GetInstance()->current_test_info();
    std::string name = std::string(test == nullptr ? "none" : test->name());
    for (char& c : name) c = c == '/' ? '_' : c;
    const std::string root = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ::testing::TempDir();
    path_ = root + "/epsim." + name + "." + std::to_string(getpid()) + "." + std::to_string(count++);
    std::filesystem::create_directories(path_);
  }
  ~ScratchFolder() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }
  std::vector<std::string> Entries() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(path_)) names.push_back(entry.path().filename());
    return names;
  }

 private:
  std::string path_;
};

inline std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return std::string(std::istreambuf_iterator<char>(file), {});
}
inline void WriteFile(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

struct SampleShape {
  Granularity granularity = REQUEST;
  int layers = 3, experts = 16, top_k = 4, id_bytes = 1;
  int units = 5;        // Requests or steps.
  int most_tokens = 7;  // Of a unit.
  bool missing = false;
  bool columns = false;  // Position, request index, phase, source rank.
  NumberFormat gate_weights = NUMBER_FORMAT_NONE, scores = NUMBER_FORMAT_NONE;
  TraceWriterOptions writer;
  uint64_t seed = 1;
};

// All that a trace says, in the order [token][layer][k], whatever the order and the chunks it is stored in.
struct Contents {
  std::vector<std::vector<int>> ids;                                 // [tokens x layers]: the valid ones.
  std::vector<int64_t> step;                                         // [tokens]
  std::vector<int64_t> position, request_index, phase, source_rank;  // [tokens], or empty.
  std::vector<std::string> gate_weights;                             // [tokens x layers]: of the valid ids.
  std::vector<std::string> scores;                                   // [tokens x layers]
  std::vector<uint32_t> counts;
  std::vector<std::string> requests;
  friend bool operator==(const Contents&, const Contents&) = default;
};

struct Sample {
  TraceHeader header;
  Contents contents;
  int64_t missing_ids = 0;
};

inline std::string Text(const RequestInfo& request) {
  return std::to_string(request.id()) + " first " + std::to_string(request.first_token()) + " tokens " +
         std::to_string(request.tokens()) + " prompt " + std::to_string(request.prompt_tokens()) + " " +
         request.domain();
}

inline int BytesOf(NumberFormat format) { return format == NUMBER_FORMAT_NONE ? 0 : format == FLOAT32 ? 4 : 2; }

// Appends random units to `writer` (not finished) and says what they were.
inline Sample AppendSample(const SampleShape& shape, TraceWriter& writer) {
  Sample sample;
  Contents& contents = sample.contents;
  RandomStream random(shape.seed, "sample");
  const auto below = [&](int bound) { return static_cast<int>(random.Below(static_cast<uint64_t>(bound))); };
  if (shape.granularity == COUNTS) {
    for (int step = 0; step < shape.units; ++step) {
      std::vector<uint32_t> counts;
      for (int i = 0; i < shape.layers * shape.experts; ++i) counts.push_back(static_cast<uint32_t>(below(1 << 20)));
      EXPECT_TRUE(writer.AppendCounts(counts).ok());
      contents.counts.insert(contents.counts.end(), counts.begin(), counts.end());
      contents.step.push_back(step);
    }
    return sample;
  }
  const int gate_bytes = BytesOf(shape.gate_weights), score_bytes = BytesOf(shape.scores);
  for (int unit = 0; unit < shape.units; ++unit) {
    const int tokens = 1 + below(shape.most_tokens);
    const auto cells = static_cast<size_t>(tokens * shape.layers);
    std::vector<int32_t> ids(cells * static_cast<size_t>(shape.top_k));
    std::string gates(ids.size() * static_cast<size_t>(gate_bytes), '\0');
    std::string scores(cells * static_cast<size_t>(shape.experts * score_bytes), '\0');
    for (char& c : gates) c = static_cast<char>(below(256));
    for (char& c : scores) c = static_cast<char>(below(256));
    const size_t base = contents.ids.size();
    contents.ids.resize(base + cells);
    if (gate_bytes > 0) contents.gate_weights.resize(base + cells);
    if (score_bytes > 0) contents.scores.resize(base + cells);
    for (int token = 0; token < tokens; ++token) {
      for (int layer = 0; layer < shape.layers; ++layer) {
        const int cell = shape.granularity == STEP ? layer * tokens + token : token * shape.layers + layer;
        const size_t place = base + static_cast<size_t>(token * shape.layers + layer);
        std::vector<int> deck(static_cast<size_t>(shape.experts));
        for (int e = 0; e < shape.experts; ++e) deck[static_cast<size_t>(e)] = e;
        for (int k = 0; k < shape.top_k; ++k) {
          std::swap(deck[static_cast<size_t>(k)], deck[static_cast<size_t>(k + below(shape.experts - k))]);
          const bool dropped = shape.missing && below(5) == 0;
          const auto at = static_cast<size_t>(cell * shape.top_k + k);
          ids[at] = dropped ? -1 : deck[static_cast<size_t>(k)];
          if (dropped) {
            ++sample.missing_ids;
            continue;
          }
          contents.ids[place].push_back(ids[at]);
          if (gate_bytes > 0) {
            contents.gate_weights[place] +=
                gates.substr(at * static_cast<size_t>(gate_bytes), static_cast<size_t>(gate_bytes));
          }
        }
        if (score_bytes > 0) {
          const auto bytes = static_cast<size_t>(shape.experts * score_bytes);
          contents.scores[place] = scores.substr(static_cast<size_t>(cell) * bytes, bytes);
        }
      }
    }
    std::vector<uint32_t> position, request_index;
    std::vector<uint8_t> phase;
    std::vector<uint16_t> source_rank;
    int rank = 0;
    for (int token = 0; token < tokens; ++token) {
      contents.step.push_back(shape.granularity == STEP ? unit : 0);
      if (!shape.columns) continue;
      rank = std::min(3, rank + below(2));
      position.push_back(static_cast<uint32_t>(random.Next()));
      request_index.push_back(static_cast<uint32_t>(below(unit + 1)));
      phase.push_back(static_cast<uint8_t>(below(3)));
      source_rank.push_back(static_cast<uint16_t>(rank));
      contents.position.push_back(position.back());
      contents.request_index.push_back(request_index.back());
      contents.phase.push_back(phase.back());
      contents.source_rank.push_back(source_rank.back());
    }
    RequestInfo request;
    request.set_id(static_cast<uint64_t>(1000 + unit));
    request.set_prompt_tokens(below(100));
    request.set_domain(unit % 2 == 0 ? "code" : "prose");
    const auto bytes = [](const std::string& text) {
      return absl::MakeConstSpan(reinterpret_cast<const std::byte*>(text.data()), text.size());
    };
    TokenColumns columns;
    columns.position = position;
    columns.request_index = request_index;
    columns.phase = phase;
    columns.source_rank = source_rank;
    columns.gate_weights = bytes(gates);
    columns.scores = bytes(scores);
    const absl::Status status = shape.granularity == STEP ? writer.AppendStep({request}, ids, columns)
                                                          : writer.AppendRequest(request, ids, columns);
    EXPECT_TRUE(status.ok()) << status;
    if (shape.granularity == REQUEST) {
      request.set_first_token(static_cast<int64_t>(base) / shape.layers);
      request.set_tokens(tokens);
    }
    contents.requests.push_back(Text(request));
  }
  return sample;
}

inline TraceHeader HeaderOf(const SampleShape& shape) {
  TraceHeader header;
  header.set_model("sample");
  header.set_layers(static_cast<uint32_t>(shape.layers));
  header.set_experts(static_cast<uint32_t>(shape.experts));
  header.set_top_k(static_cast<uint32_t>(shape.top_k));
  header.set_id_bytes(static_cast<uint32_t>(shape.id_bytes));
  header.set_granularity(shape.granularity);
  header.set_gate_weights(shape.gate_weights);
  header.set_scores(shape.scores);
  header.set_source_ranks(shape.columns ? 4 : 0);
  return header;
}

inline Sample WriteSample(const SampleShape& shape, const std::string& path) {
  auto writer = TraceWriter::Create(path, HeaderOf(shape), shape.writer);
  EXPECT_TRUE(writer.ok()) << writer.status();
  Sample sample = AppendSample(shape, **writer);
  sample.header = HeaderOf(shape);
  EXPECT_EQ((*writer)->missing_ids(), sample.missing_ids);
  const absl::Status status = (*writer)->Finish();
  EXPECT_TRUE(status.ok()) << status;
  return sample;
}

inline absl::StatusOr<Contents> ReadContents(const TraceReader& trace) {
  Contents contents;
  const TraceHeader& header = trace.header();
  const int layers = static_cast<int>(header.layers()), top_k = static_cast<int>(header.top_k());
  const auto gate_bytes = static_cast<size_t>(BytesOf(header.gate_weights()));
  const auto score_bytes = header.experts() * static_cast<size_t>(BytesOf(header.scores()));
  for (int64_t i = 0; i < trace.index().chunks_size(); ++i) {
    const absl::StatusOr<TraceChunk> chunk = trace.ReadChunk(i);
    if (!chunk.ok()) return chunk.status();
    for (int64_t token = 0; token < chunk->tokens; ++token) {
      contents.step.push_back(header.granularity() == COUNTS ? chunk->step + token : chunk->step);
      if (chunk->position != nullptr) contents.position.push_back(chunk->position[token]);
      if (chunk->request_index != nullptr) contents.request_index.push_back(chunk->request_index[token]);
      if (chunk->phase != nullptr) contents.phase.push_back(chunk->phase[token]);
      if (chunk->source_rank != nullptr) contents.source_rank.push_back(chunk->source_rank[token]);
      for (int layer = 0; layer < layers; ++layer) {
        if (header.granularity() == COUNTS) {
          const uint32_t* row = chunk->counts + (token * layers + layer) * header.experts();
          contents.counts.insert(contents.counts.end(), row, row + header.experts());
          continue;
        }
        const int64_t cell = header.granularity() == STEP ? layer * chunk->tokens + token : token * layers + layer;
        const int valid = chunk->valid_count == nullptr ? top_k : chunk->valid_count[cell];
        std::vector<int>& ids = contents.ids.emplace_back();
        for (int k = 0; k < valid; ++k) {
          const std::byte* id = chunk->ids + (cell * top_k + k) * header.id_bytes();
          uint16_t wide = static_cast<uint16_t>(*id);
          if (header.id_bytes() == 2) std::memcpy(&wide, id, 2);
          ids.push_back(wide);
        }
        const auto text = [](const std::byte* from, size_t bytes) {
          return std::string(reinterpret_cast<const char*>(from), bytes);
        };
        if (chunk->gate_weights != nullptr) {
          contents.gate_weights.push_back(text(chunk->gate_weights + static_cast<size_t>(cell * top_k) * gate_bytes,
                                               static_cast<size_t>(valid) * gate_bytes));
        }
        if (chunk->scores != nullptr) {
          contents.scores.push_back(text(chunk->scores + static_cast<size_t>(cell) * score_bytes, score_bytes));
        }
      }
    }
  }
  for (const RequestInfo& request : trace.requests()) contents.requests.push_back(Text(request));
  return contents;
}

}  // namespace epsim
