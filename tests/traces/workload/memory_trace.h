// A trace that exists only in memory, for tests of what is composed from one: chunks are added as they are, unchecked.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "traces/format/trace_reader.h"

namespace epsim {

class MemoryTrace final : public TraceReader {
 public:
  // The columns of a chunk; an empty one is not recorded.  ids as TraceChunk has them, any number of bytes an id.
  struct Columns {
    int64_t tokens = 0;
    int64_t step = 0;
    std::vector<uint16_t> ids = {};
    std::vector<uint8_t> valid_count = {};
    std::vector<uint32_t> position = {}, request_index = {};
    std::vector<uint8_t> phase = {};
    std::vector<uint16_t> source_rank = {};
    std::vector<uint32_t> counts = {};
    std::vector<std::byte> scores = {};  // As the header's format says.
  };

  explicit MemoryTrace(TraceHeader header) : header_(std::move(header)) {}

  // `id_bytes` of the header says how the ids are stored.
  void AddChunk(Columns columns) {
    auto stored = std::make_unique<Stored>();
    for (const uint16_t id : columns.ids) {
      const char* bytes = reinterpret_cast<const char*>(&id);  // Little-endian.
      stored->ids.insert(stored->ids.end(), bytes, bytes + header_.id_bytes());
    }
    stored->columns = std::move(columns);
    TraceIndex::Chunk* entry = index_.add_chunks();
    entry->set_first_token(rows_);
    entry->set_tokens(stored->columns.tokens);
    entry->set_step(stored->columns.step);
    rows_ += stored->columns.tokens;
    if (header_.granularity() != COUNTS) index_.set_tokens(rows_);
    chunks_.push_back(std::move(stored));
  }
  void AddRequest(int64_t first_token, int64_t tokens, int64_t prompt_tokens = 0) {
    RequestInfo& request = requests_.emplace_back();
    request.set_id(requests_.size() - 1);
    request.set_first_token(first_token);
    request.set_tokens(tokens);
    request.set_prompt_tokens(prompt_tokens);
  }
  // ReadChunk of this one fails.
  void Spoil(int64_t chunk) { spoilt_ = chunk; }
  int64_t reads() const { return reads_; }

  const std::string& path() const override { return path_; }
  const TraceHeader& header() const override { return header_; }
  const TraceIndex& index() const override { return index_; }
  absl::Span<const RequestInfo> requests() const override { return requests_; }
  std::string hash() const override { return "0123456789abcdef"; }
  absl::StatusOr<TraceChunk> ReadChunk(int64_t i) const override {
    ++reads_;
    if (i == spoilt_) return absl::DataLossError(absl::StrCat(path_, ": chunk ", i, ": spoilt"));
    const Stored& stored = *chunks_[static_cast<size_t>(i)];
    const auto or_null = [](const auto& column) { return column.empty() ? nullptr : column.data(); };
    TraceChunk chunk;
    chunk.first_token = index_.chunks(static_cast<int>(i)).first_token();
    chunk.tokens = stored.columns.tokens;
    chunk.step = stored.columns.step;
    chunk.ids = reinterpret_cast<const std::byte*>(or_null(stored.ids));
    chunk.valid_count = or_null(stored.columns.valid_count);
    chunk.position = or_null(stored.columns.position);
    chunk.request_index = or_null(stored.columns.request_index);
    chunk.phase = or_null(stored.columns.phase);
    chunk.source_rank = or_null(stored.columns.source_rank);
    chunk.counts = or_null(stored.columns.counts);
    chunk.scores = or_null(stored.columns.scores);
    return chunk;
  }
  int64_t ChunkOfToken(int64_t token) const override {
    int64_t chunk = 0;
    while (token >=
           index_.chunks(static_cast<int>(chunk)).first_token() + index_.chunks(static_cast<int>(chunk)).tokens()) {
      ++chunk;
    }
    return chunk;
  }

 private:
  struct Stored {
    Columns columns;
    std::vector<char> ids;
  };
  std::string path_ = "memory.eptrace";
  TraceHeader header_;
  TraceIndex index_;
  std::vector<std::unique_ptr<Stored>> chunks_;
  std::vector<RequestInfo> requests_;
  int64_t rows_ = 0, spoilt_ = -1;
  mutable int64_t reads_ = 0;
};

inline TraceHeader HeaderOf(Granularity granularity, int layers, int top_k, int experts, int id_bytes,
                            int source_ranks = 0) {
  TraceHeader header;
  header.set_schema_version(1);
  header.set_model("test");
  header.set_layers(static_cast<uint32_t>(layers));
  header.set_top_k(static_cast<uint32_t>(top_k));
  header.set_experts(static_cast<uint32_t>(experts));
  header.set_id_bytes(static_cast<uint32_t>(id_bytes));
  header.set_granularity(granularity);
  header.set_source_ranks(static_cast<uint32_t>(source_ranks));
  return header;
}

}  // namespace epsim
