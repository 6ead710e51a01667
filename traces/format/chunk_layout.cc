#include "traces/format/chunk_layout.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "traces/format/frame.h"
#include "traces/format/id_check.h"

namespace epsim {
namespace {

constexpr int64_t kMaxLayers = 65536;
// Far above any trace, far below overflow.
constexpr int64_t kMaxTokens = int64_t{1} << 56;

absl::Status Invalid(std::string message) { return absl::InvalidArgumentError(message); }

}  // namespace

int NumberBytes(NumberFormat format) {
  switch (format) {
    case FLOAT16:
    case BFLOAT16:
      return 2;
    case FLOAT32:
      return 4;
    case NUMBER_FORMAT_NONE:
    case NumberFormat_INT_MIN_SENTINEL_DO_NOT_USE_:
    case NumberFormat_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  return 0;
}

int64_t ColumnBytesPerToken(const TraceHeader& header, Column::Kind kind) {
  const int64_t layers = header.layers(), top_k = header.top_k(), experts = header.experts();
  if ((header.granularity() == COUNTS) != (kind == Column::COUNT)) return 0;
  switch (kind) {
    case Column::IDS:
      return layers * top_k * header.id_bytes();
    case Column::VALID_COUNT:
      return layers;
    case Column::POSITION:
    case Column::REQUEST_INDEX:
      return 4;
    case Column::TOKEN_PHASE:
      return 1;
    case Column::SOURCE_RANK:
      return header.source_ranks() > 0 ? 2 : 0;
    case Column::GATE_WEIGHT:
      return layers * top_k * NumberBytes(header.gate_weights());
    case Column::SCORE:
      return layers * experts * NumberBytes(header.scores());
    case Column::COUNT:
      return layers * experts * 4;
    case Column::KIND_UNKNOWN:
    case Column_Kind_Column_Kind_INT_MIN_SENTINEL_DO_NOT_USE_:
    case Column_Kind_Column_Kind_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  return 0;
}

absl::Status CheckTraceHeader(const TraceHeader& header) {
  if (header.schema_version() != kTraceSchemaVersion) {
    return Invalid(
        absl::StrCat("the header says schema version ", header.schema_version(), ", the file ", kTraceSchemaVersion));
  }
  if (header.layers() < 1 || header.layers() > kMaxLayers) {
    return Invalid(absl::StrCat("layers is ", header.layers(), ", not between 1 and ", kMaxLayers));
  }
  if (header.id_bytes() != 1 && header.id_bytes() != 2) {
    return Invalid(absl::StrCat("id_bytes is ", header.id_bytes(), ", not 1 or 2"));
  }
  const uint32_t most_experts = header.id_bytes() == 1 ? 256 : 65536;
  if (header.experts() < 1 || header.experts() > most_experts) {
    return Invalid(absl::StrCat("experts is ", header.experts(), ", not between 1 and ", most_experts, " (id_bytes is ",
                                header.id_bytes(), ")"));
  }
  if (header.top_k() < 1 || header.top_k() > 255 || header.top_k() > header.experts()) {
    return Invalid(absl::StrCat("top_k is ", header.top_k(), ", not between 1 and ",
                                header.experts() < 255 ? header.experts() : 255));
  }
  if (header.granularity() != REQUEST && header.granularity() != STEP && header.granularity() != COUNTS) {
    return Invalid(absl::StrCat("granularity ", static_cast<int>(header.granularity()),
                                " is not REQUEST (1), STEP (2) or COUNTS (3)"));
  }
  if (header.gate_weights() != NUMBER_FORMAT_NONE && NumberBytes(header.gate_weights()) == 0) {
    return Invalid(absl::StrCat("unknown format ", static_cast<int>(header.gate_weights()), " of gate_weights"));
  }
  if (header.scores() != NUMBER_FORMAT_NONE && NumberBytes(header.scores()) == 0) {
    return Invalid(absl::StrCat("unknown format ", static_cast<int>(header.scores()), " of scores"));
  }
  if (header.source_ranks() > 65536) {
    return Invalid(absl::StrCat("source_ranks is ", header.source_ranks(), ", more than 65536"));
  }
  int64_t token_bytes = 0;
  for (int kind = Column::IDS; kind <= Column::COUNT; ++kind) {
    token_bytes += ColumnBytesPerToken(header, static_cast<Column::Kind>(kind)) + static_cast<int64_t>(kTraceAlignment);
  }
  if (token_bytes > kMaxChunkBytes) {
    return Invalid(
        absl::StrCat("one token takes ", token_bytes, " bytes, more than a chunk may have (", kMaxChunkBytes, ")"));
  }
  return absl::OkStatus();
}

absl::Status CheckChunkHeader(const TraceHeader& header, const ChunkHeader& chunk, uint64_t stored_bytes) {
  // One byte a token at least, so this bounds every product below: 2^30 tokens of at most 2^30 bytes.
  if (chunk.tokens() < 1 || chunk.tokens() > kMaxChunkBytes) {
    return Invalid(absl::StrCat("a chunk of ", chunk.tokens(), " tokens"));
  }
  if (chunk.first_token() < 0 || chunk.first_token() > kMaxTokens) {
    return Invalid(absl::StrCat("a chunk whose first token is ", chunk.first_token()));
  }
  uint64_t raw_bytes = 0;
  int last_kind = 0;
  for (const Column& column : chunk.columns()) {
    const int64_t token_bytes = ColumnBytesPerToken(header, column.kind());
    if (token_bytes == 0 || column.kind() <= last_kind) {
      return Invalid(absl::StrCat("a chunk cannot have column ", static_cast<int>(column.kind()), " after ", last_kind,
                                  " in this trace"));
    }
    const auto bytes = static_cast<uint64_t>(token_bytes * chunk.tokens());
    if (column.bytes() != bytes) {
      return Invalid(absl::StrCat("column ", static_cast<int>(column.kind()), " of ", chunk.tokens(), " tokens has ",
                                  column.bytes(), " bytes, not ", bytes));
    }
    if (bytes > static_cast<uint64_t>(kMaxChunkBytes)) {
      return Invalid(absl::StrCat("a column of ", bytes, " bytes, more than ", kMaxChunkBytes));
    }
    raw_bytes += Aligned(bytes);
    last_kind = column.kind();
  }
  const Column::Kind first = header.granularity() == COUNTS ? Column::COUNT : Column::IDS;
  if (chunk.columns_size() == 0 || chunk.columns(0).kind() != first) {
    return Invalid(header.granularity() == COUNTS ? "a chunk without counts" : "a chunk without ids");
  }
  if (raw_bytes != chunk.raw_bytes() || raw_bytes > static_cast<uint64_t>(kMaxChunkBytes)) {
    return Invalid(absl::StrCat("raw_bytes is ", chunk.raw_bytes(), ", the columns have ", raw_bytes,
                                " and a chunk at most ", kMaxChunkBytes));
  }
  if (chunk.codec() != ChunkHeader::RAW && chunk.codec() != ChunkHeader::ZSTD) {
    return Invalid(absl::StrCat("unknown codec ", static_cast<int>(chunk.codec())));
  }
  if (chunk.codec() == ChunkHeader::RAW && stored_bytes != raw_bytes) {
    return Invalid(absl::StrCat("a raw payload of ", stored_bytes, " bytes, not ", raw_bytes));
  }
  return absl::OkStatus();
}

TraceChunk LocateColumns(const TraceHeader& header, const ChunkHeader& chunk, const std::byte* payload) {
  TraceChunk located{.first_token = chunk.first_token(),
                     .tokens = chunk.tokens(),
                     .step = header.granularity() == COUNTS ? chunk.first_token() : chunk.step()};
  for (const Column& column : chunk.columns()) {
    // Columns begin at multiples of 64 bytes, so the casts are aligned.
    switch (column.kind()) {
      case Column::IDS:
        located.ids = payload;
        break;
      case Column::VALID_COUNT:
        located.valid_count = reinterpret_cast<const uint8_t*>(payload);
        break;
      case Column::POSITION:
        located.position = reinterpret_cast<const uint32_t*>(payload);
        break;
      case Column::REQUEST_INDEX:
        located.request_index = reinterpret_cast<const uint32_t*>(payload);
        break;
      case Column::TOKEN_PHASE:
        located.phase = reinterpret_cast<const uint8_t*>(payload);
        break;
      case Column::SOURCE_RANK:
        located.source_rank = reinterpret_cast<const uint16_t*>(payload);
        break;
      case Column::GATE_WEIGHT:
        located.gate_weights = payload;
        break;
      case Column::SCORE:
        located.scores = payload;
        break;
      case Column::COUNT:
        located.counts = reinterpret_cast<const uint32_t*>(payload);
        break;
      case Column::KIND_UNKNOWN:
      case Column_Kind_Column_Kind_INT_MIN_SENTINEL_DO_NOT_USE_:
      case Column_Kind_Column_Kind_INT_MAX_SENTINEL_DO_NOT_USE_:
        break;
    }
    payload += Aligned(column.bytes());
  }
  return located;
}

absl::Status CheckChunkValues(const TraceHeader& header, const TraceChunk& chunk, int64_t requests,
                              int64_t* missing_ids) {
  *missing_ids = 0;
  if (chunk.ids == nullptr) return absl::OkStatus();
  const int64_t layers = header.layers();
  const int top_k = static_cast<int>(header.top_k());
  const int experts = static_cast<int>(header.experts());
  const int id_bytes = static_cast<int>(header.id_bytes());
  const int64_t rows = chunk.tokens * layers;
  const auto place = [&](int64_t row) {
    const bool by_layer = header.granularity() == STEP;
    return absl::StrCat("token ", chunk.first_token + (by_layer ? row % chunk.tokens : row / layers), ", layer ",
                        by_layer ? row / chunk.tokens : row % layers);
  };

  if (chunk.valid_count != nullptr) {
    for (int64_t row = 0; row < rows; ++row) {
      if (chunk.valid_count[row] > top_k) {
        return Invalid(absl::StrCat(place(row), ": ", chunk.valid_count[row], " valid ids of ", top_k));
      }
      *missing_ids += top_k - chunk.valid_count[row];
    }
  }
  // Where ids are missing, the blocks of rows that have all of theirs still take the fast way.
  const int64_t block = chunk.valid_count == nullptr ? rows : 4096;
  for (int64_t begin = 0; begin < rows; begin += block) {
    const int64_t size = std::min(block, rows - begin);
    const std::byte* ids = chunk.ids + begin * top_k * id_bytes;
    const uint8_t* valid = chunk.valid_count == nullptr ? nullptr : chunk.valid_count + begin;
    const bool full = valid == nullptr || std::all_of(valid, valid + size, [&](uint8_t v) { return v == top_k; });
    if (full && IdsAreSound(ids, id_bytes, size, top_k, experts)) continue;
    int id;
    bool repeated;
    const int64_t row = FirstUnsoundRow(ids, id_bytes, size, top_k, experts, valid, &id, &repeated);
    if (row < 0) continue;
    return Invalid(repeated ? absl::StrCat(place(begin + row), ": expert ", id, " is twice in one top-k")
                            : absl::StrCat(place(begin + row), ": expert ", id, " is not below ", experts));
  }
  for (int64_t token = 0; token < chunk.tokens; ++token) {
    if (chunk.phase != nullptr && chunk.phase[token] > DECODE) {
      return Invalid(absl::StrCat("token ", chunk.first_token + token, ": unknown phase ", chunk.phase[token]));
    }
    if (chunk.request_index != nullptr && chunk.request_index[token] >= requests) {
      return Invalid(absl::StrCat("token ", chunk.first_token + token, ": request ", chunk.request_index[token], " of ",
                                  requests));
    }
    if (chunk.source_rank == nullptr) continue;
    if (chunk.source_rank[token] >= header.source_ranks()) {
      return Invalid(absl::StrCat("token ", chunk.first_token + token, ": source rank ", chunk.source_rank[token],
                                  " of ", header.source_ranks()));
    }
    if (header.granularity() == STEP && token > 0 && chunk.source_rank[token] < chunk.source_rank[token - 1]) {
      return Invalid(absl::StrCat("token ", chunk.first_token + token, ": source rank ", chunk.source_rank[token],
                                  " after ", chunk.source_rank[token - 1], " in one step"));
    }
  }
  return absl::OkStatus();
}

absl::Status StepRankOrder::Add(const TraceChunk& chunk) {
  if (chunk.source_rank == nullptr) return absl::OkStatus();
  if (chunk.step == step_ && chunk.source_rank[0] < rank_) {
    return Invalid(absl::StrCat("token ", chunk.first_token, ": source rank ", chunk.source_rank[0], " after ", rank_,
                                " in one step"));
  }
  step_ = chunk.step;
  rank_ = chunk.source_rank[chunk.tokens - 1];
  return absl::OkStatus();
}

absl::Status ChunkSequence::Add(const ChunkHeader& chunk) {
  if (chunk.first_token() != rows_) {
    return Invalid(absl::StrCat("the first token is ", chunk.first_token(), ", not ", rows_));
  }
  const int64_t expected_step = granularity_ == STEP ? step_ + (step_continues_ ? 0 : 1) : 0;
  if (chunk.step() != expected_step || (granularity_ != STEP && chunk.step_continues())) {
    return Invalid(absl::StrCat("is of step ", chunk.step(), ", where step ", expected_step, " should follow"));
  }
  if (granularity_ == COUNTS && chunk.requests_size() > 0) return Invalid("a trace of counts has no requests");
  const int64_t end = rows_ + chunk.tokens();
  int64_t covered = covered_;
  for (const RequestInfo& request : chunk.requests()) {
    if (request.tokens() < 0 || request.tokens() > kMaxTokens || request.prompt_tokens() < 0 ||
        request.prompt_tokens() > kMaxTokens) {
      return Invalid(absl::StrCat("request ", request.id(), " has ", request.tokens(), " tokens after ",
                                  request.prompt_tokens(), " of prompt"));
    }
    if (granularity_ != REQUEST) continue;
    if (request.tokens() < 1 || request.first_token() != covered || covered >= end || covered < rows_) {
      return Invalid(absl::StrCat("request ", request.id(), " has ", request.tokens(), " tokens from ",
                                  request.first_token(), ", where a request should begin at ", covered));
    }
    covered += request.tokens();
  }
  if (granularity_ == REQUEST && covered < end) {
    return Invalid(absl::StrCat("tokens ", covered, " to ", end - 1, " belong to no request"));
  }
  requests_ += chunk.requests_size();
  covered_ = covered;
  rows_ = end;
  if (granularity_ == STEP) step_ = chunk.step();
  step_continues_ = chunk.step_continues();
  ++chunks_;
  return absl::OkStatus();
}

absl::Status ChunkSequence::Finish() const {
  if (chunks_ == 0) return Invalid("the trace has no chunk");
  if (granularity_ == REQUEST && covered_ != rows_) {
    return Invalid(absl::StrCat("the requests have ", covered_, " tokens, the chunks ", rows_));
  }
  if (step_continues_) return Invalid(absl::StrCat("step ", step_, " should continue after the last chunk"));
  return absl::OkStatus();
}

}  // namespace epsim
