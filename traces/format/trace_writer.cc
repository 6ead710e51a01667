#include "traces/format/trace_writer.h"

#include <zstd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"
#include "traces/format/frame.h"
#include "traces/format/frame_writer.h"

namespace epsim {
namespace {

// A chunk is closed when the requests that begin in it take this much of its header.
constexpr int64_t kMaxRequestBytes = int64_t{1} << 20;

// Protocol Buffers cannot read back a string that is not UTF-8.  Surrogates and overlong forms are not UTF-8.
bool IsUtf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<uint8_t>(text[i]);
    const size_t more = lead < 0x80 ? 0 : lead < 0xc2 ? 4 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : lead < 0xf5 ? 3 : 4;
    if (more == 4 || text.size() - i <= more) return false;
    uint32_t code = more == 0 ? lead : lead & (0x3fu >> more);
    for (size_t k = 1; k <= more; ++k) {
      const auto byte = static_cast<uint8_t>(text[i + k]);
      if ((byte & 0xc0) != 0x80) return false;
      code = code << 6 | (byte & 0x3fu);
    }
    if ((more == 2 && (code < 0x800 || (code >= 0xd800 && code < 0xe000))) ||
        (more == 3 && (code < 0x10000 || code > 0x10ffff))) {
      return false;
    }
    i += more + 1;
  }
  return true;
}

class EptraceWriter : public TraceWriter {
 public:
  EptraceWriter(FrameWriter file, std::string path, const TraceHeader& header, const TraceWriterOptions& options)
      : file_(std::move(file)),
        path_(std::move(path)),
        header_(header),
        options_(options),
        layers_(header.layers()),
        top_k_(header.top_k()),
        seen_in_(header.experts(), -1),
        compressor_(ZSTD_createCCtx(), ZSTD_freeCCtx) {
    int64_t token_bytes = 0;
    for (int kind = Column::IDS; kind <= Column::COUNT; ++kind) {
      token_bytes += ColumnBytesPerToken(header_, static_cast<Column::Kind>(kind));
    }
    // CheckTraceHeader leaves room for one token.
    const int64_t padding = Column::COUNT * static_cast<int64_t>(kTraceAlignment);
    tokens_per_chunk_ = std::max<int64_t>(1, (options.chunk_bytes - padding) / token_bytes);
  }

  absl::Status WriteStart() { return file_.WriteStart(header_); }

  absl::Status AppendRequest(const RequestInfo& request, absl::Span<const int32_t> ids,
                             const TokenColumns& columns) override {
    return Keep(DoAppendRequest(request, ids, columns));
  }
  absl::Status AppendStep(absl::Span<const RequestInfo> requests, absl::Span<const int32_t> ids,
                          const TokenColumns& columns) override {
    return Keep(DoAppendStep(requests, ids, columns));
  }
  absl::Status AppendCounts(absl::Span<const uint32_t> counts) override { return Keep(DoAppendCounts(counts)); }

  absl::Status Finish() override {
    RETURN_IF_ERROR(Keep(DoFinish()));
    failure_ = absl::FailedPreconditionError(absl::StrCat(path_, ": is finished"));
    return absl::OkStatus();
  }
  void Abandon() override {
    file_.Abandon();
    failure_ = absl::FailedPreconditionError(absl::StrCat(path_, ": was abandoned"));
  }

  int64_t tokens() const override { return header_.granularity() == COUNTS ? 0 : tokens_; }
  int64_t missing_ids() const override { return missing_ids_ + chunk_missing_ids_; }

 private:
  absl::Status Keep(absl::Status status) {
    if (!status.ok()) failure_ = status;
    return status;
  }

  absl::Status Invalid(std::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat(path_, ": ", absl::string_view(what.data(), what.size())));
  }

  absl::Status CheckReady(Granularity granularity) const {
    RETURN_IF_ERROR(failure_);
    if (header_.granularity() == granularity) return absl::OkStatus();
    return Invalid(absl::StrCat("a trace of granularity ", Granularity_Name(header_.granularity()), " cannot take a ",
                                granularity == REQUEST ? "request"
                                : granularity == STEP  ? "step"
                                                       : "step of counts"));
  }

  // The number of tokens that `ids` holds, after checking that every column fits it.
  absl::StatusOr<int64_t> CheckShape(const std::string& what, absl::Span<const int32_t> ids,
                                     const TokenColumns& columns) const {
    const int64_t cell = layers_ * top_k_;
    const auto size = static_cast<int64_t>(ids.size());
    if (size == 0) return Invalid(absl::StrCat(what, " has no tokens"));
    if (size % cell != 0) {
      return Invalid(absl::StrCat(what, ": ", size, " ids are not whole tokens of ", layers_, " layers x ", top_k_));
    }
    const int64_t tokens = size / cell;
    struct {
      const char* name;
      size_t entries;
      Column::Kind kind;
      size_t entry_bytes;
    } const given[] = {{"position", columns.position.size(), Column::POSITION, 4},
                       {"request_index", columns.request_index.size(), Column::REQUEST_INDEX, 4},
                       {"phase", columns.phase.size(), Column::TOKEN_PHASE, 1},
                       {"source_rank", columns.source_rank.size(), Column::SOURCE_RANK, 2},
                       {"gate_weights", columns.gate_weights.size(), Column::GATE_WEIGHT, 1},
                       {"scores", columns.scores.size(), Column::SCORE, 1}};
    for (const auto& column : given) {
      const auto bytes = static_cast<int64_t>(column.entries * column.entry_bytes);
      const int64_t expected = ColumnBytesPerToken(header_, column.kind) * tokens;
      if (column.entries == 0 || bytes == expected) continue;
      return Invalid(absl::StrCat(what, ": column ", column.name, " has ", bytes, " bytes, not ", expected, " for ",
                                  tokens, " tokens"));
    }
    return tokens;
  }

  // Values of the per-token columns of the next tokens.
  absl::Status CheckColumns(const std::string& what, const TokenColumns& columns, int64_t tokens,
                            int64_t requests) const {
    for (int64_t i = 0; i < tokens; ++i) {
      const auto token = static_cast<size_t>(i);
      const auto place = [&] { return absl::StrCat(what, ", token ", i, ": "); };
      if (!columns.phase.empty() && columns.phase[token] > DECODE) {
        return Invalid(absl::StrCat(place(), "unknown phase ", columns.phase[token]));
      }
      if (!columns.request_index.empty() && columns.request_index[token] >= requests) {
        return Invalid(absl::StrCat(place(), "request index ", columns.request_index[token], " of ", requests));
      }
      if (columns.source_rank.empty()) continue;
      const int rank = columns.source_rank[token];
      if (rank >= static_cast<int>(header_.source_ranks())) {
        return Invalid(absl::StrCat(place(), "source rank ", rank, " of ", header_.source_ranks()));
      }
      if (header_.granularity() == STEP && i > 0 && rank < columns.source_rank[token - 1]) {
        return Invalid(absl::StrCat(place(), "source rank ", rank, " after ", columns.source_rank[token - 1],
                                    "; a step's tokens are in the order of their ranks"));
      }
    }
    return absl::OkStatus();
  }

  // A copy of `request` as it will be stored.
  absl::StatusOr<RequestInfo> CheckRequest(const RequestInfo& request) const {
    if (request.tokens() < 0 || request.prompt_tokens() < 0) {
      return Invalid(absl::StrCat("request ", request.id(), ": ", request.tokens(), " tokens, ",
                                  request.prompt_tokens(), " of prompt"));
    }
    if (!IsUtf8(request.domain())) return Invalid(absl::StrCat("request ", request.id(), ": domain is not UTF-8"));
    return request;
  }

  absl::Status DoAppendRequest(const RequestInfo& request, absl::Span<const int32_t> ids, const TokenColumns& columns) {
    RETURN_IF_ERROR(CheckReady(REQUEST));
    const std::string what = absl::StrCat("request ", request.id());
    ASSIGN_OR_RETURN(RequestInfo info, CheckRequest(request));
    ASSIGN_OR_RETURN(const int64_t tokens, CheckShape(what, ids, columns));
    if (info.tokens() != 0 && info.tokens() != tokens) {
      return Invalid(absl::StrCat(what, " says ", info.tokens(), " tokens but brings ", tokens));
    }
    RETURN_IF_ERROR(CheckColumns(what, columns, tokens, requests_ + 1));
    info.set_tokens(tokens);
    info.set_first_token(tokens_);

    const auto kinds = KindsOf(columns);
    if (chunk_tokens_ > 0 && (kinds != chunk_kinds_ || request_bytes_ > kMaxRequestBytes)) {
      RETURN_IF_ERROR(WriteChunk());
    }
    for (int64_t done = 0; done < tokens;) {
      if (chunk_tokens_ == tokens_per_chunk_) RETURN_IF_ERROR(WriteChunk());
      if (done == 0) AddRequest(std::move(info));
      chunk_kinds_ = kinds;
      const int64_t piece = std::min(tokens - done, tokens_per_chunk_ - chunk_tokens_);
      const int64_t cells = piece * layers_;
      GrowColumns(piece, columns);
      for (int64_t cell = 0; cell < cells; ++cell) {
        const int64_t from = done * layers_ + cell;
        RETURN_IF_ERROR(PackTopK(ids, columns, from, chunk_tokens_ * layers_ + cell, [&] {
          return absl::StrCat(what, ", token ", from / layers_, ", layer ", from % layers_);
        }));
      }
      CopyTokenColumns(columns, done, piece);
      CopyBytes(columns.scores, ColumnBytesPerToken(header_, Column::SCORE), done, chunk_tokens_, piece,
                Buffer(Column::SCORE));
      chunk_tokens_ += piece;
      tokens_ += piece;
      done += piece;
    }
    return absl::OkStatus();
  }

  absl::Status DoAppendStep(absl::Span<const RequestInfo> requests, absl::Span<const int32_t> ids,
                            const TokenColumns& columns) {
    RETURN_IF_ERROR(CheckReady(STEP));
    const std::string what = absl::StrCat("step ", steps_);
    ASSIGN_OR_RETURN(const int64_t tokens, CheckShape(what, ids, columns));
    RETURN_IF_ERROR(CheckColumns(what, columns, tokens, requests_ + static_cast<int64_t>(requests.size())));
    for (const RequestInfo& request : requests) {
      ASSIGN_OR_RETURN(RequestInfo info, CheckRequest(request));
      AddRequest(std::move(info));
    }
    const int64_t score_bytes = ColumnBytesPerToken(header_, Column::SCORE) / layers_;
    for (int64_t done = 0; done < tokens;) {
      chunk_kinds_ = KindsOf(columns);
      const int64_t piece = std::min(tokens - done, tokens_per_chunk_);
      GrowColumns(piece, columns);
      for (int64_t layer = 0; layer < layers_; ++layer) {
        for (int64_t token = 0; token < piece; ++token) {
          RETURN_IF_ERROR(PackTopK(ids, columns, layer * tokens + done + token, layer * piece + token,
                                   [&] { return absl::StrCat(what, ", token ", done + token, ", layer ", layer); }));
        }
        CopyBytes(columns.scores, score_bytes, layer * tokens + done, layer * piece, piece, Buffer(Column::SCORE));
      }
      CopyTokenColumns(columns, done, piece);
      chunk_tokens_ = piece;
      tokens_ += piece;
      done += piece;
      chunk_.set_step_continues(done < tokens);
      RETURN_IF_ERROR(WriteChunk());
    }
    ++steps_;
    return absl::OkStatus();
  }

  absl::Status DoAppendCounts(absl::Span<const uint32_t> counts) {
    RETURN_IF_ERROR(CheckReady(COUNTS));
    const int64_t step_bytes = ColumnBytesPerToken(header_, Column::COUNT);
    if (static_cast<int64_t>(counts.size() * 4) != step_bytes) {
      return Invalid(absl::StrCat("step ", tokens_, ": ", counts.size(), " counts, not ", layers_, " layers x ",
                                  header_.experts(), " experts"));
    }
    if (chunk_tokens_ == tokens_per_chunk_) RETURN_IF_ERROR(WriteChunk());
    Buffer(Column::COUNT).append(reinterpret_cast<const char*>(counts.data()), static_cast<size_t>(step_bytes));
    ++chunk_tokens_;
    ++tokens_;
    ++steps_;
    return absl::OkStatus();
  }

  absl::Status DoFinish() {
    RETURN_IF_ERROR(failure_);
    if (tokens_ == 0) return Invalid("nothing was written");
    if (chunk_tokens_ > 0) RETURN_IF_ERROR(WriteChunk());
    index_.set_tokens(tokens());
    index_.set_steps(steps_);
    index_.set_requests(requests_);
    index_.set_missing_ids(missing_ids_);
    return file_.WriteEnd(index_);
  }

  // ----- the open chunk

  using Kinds = std::array<bool, Column::COUNT + 1>;

  Kinds KindsOf(const TokenColumns& columns) const {
    Kinds kinds{};
    kinds[Column::IDS] = true;
    kinds[Column::POSITION] = !columns.position.empty();
    kinds[Column::REQUEST_INDEX] = !columns.request_index.empty();
    kinds[Column::TOKEN_PHASE] = !columns.phase.empty();
    kinds[Column::SOURCE_RANK] = !columns.source_rank.empty();
    kinds[Column::GATE_WEIGHT] = !columns.gate_weights.empty();
    kinds[Column::SCORE] = !columns.scores.empty();
    return kinds;
  }

  std::string& Buffer(Column::Kind kind) { return buffers_[static_cast<size_t>(kind)]; }

  // Makes room for `tokens` more, zeroed, in every column that the chunk has.
  void GrowColumns(int64_t tokens, const TokenColumns& columns) {
    Kinds kinds = KindsOf(columns);
    kinds[Column::VALID_COUNT] = true;  // Kept while the chunk is open; written only if it says something.
    for (int kind = Column::IDS; kind < Column::COUNT; ++kind) {
      if (!kinds[static_cast<size_t>(kind)]) continue;
      std::string& buffer = Buffer(static_cast<Column::Kind>(kind));
      const int64_t bytes = ColumnBytesPerToken(header_, static_cast<Column::Kind>(kind)) * (chunk_tokens_ + tokens);
      buffer.resize(static_cast<size_t>(bytes));
    }
  }

  // Moves one top-k, number `from` of the source and `to` of the chunk, leaving out the ids that are negative.
  template <typename Place>
  absl::Status PackTopK(absl::Span<const int32_t> ids, const TokenColumns& columns, int64_t from, int64_t to,
                        const Place& place) {
    const int32_t* source = ids.data() + from * top_k_;
    char* packed = Buffer(Column::IDS).data() + to * top_k_ * header_.id_bytes();
    const int64_t weight_bytes = columns.gate_weights.empty() ? 0 : NumberBytes(header_.gate_weights());
    const auto experts = static_cast<int32_t>(header_.experts());
    ++top_ks_;
    int valid = 0;
    for (int64_t k = 0; k < top_k_; ++k) {
      const int32_t id = source[k];
      if (id < 0) continue;
      if (id >= experts) return Invalid(absl::StrCat(place(), ": expert ", id, " is not below ", experts));
      int64_t& seen_in = seen_in_[static_cast<size_t>(id)];
      if (seen_in == top_ks_) return Invalid(absl::StrCat(place(), ": expert ", id, " is twice in one top-k"));
      seen_in = top_ks_;
      if (header_.id_bytes() == 1) {
        packed[valid] = static_cast<char>(id);
      } else {
        const auto wide = static_cast<uint16_t>(id);
        std::memcpy(packed + valid * 2, &wide, 2);
      }
      if (weight_bytes > 0) {
        std::memcpy(Buffer(Column::GATE_WEIGHT).data() + (to * top_k_ + valid) * weight_bytes,
                    columns.gate_weights.data() + (from * top_k_ + k) * weight_bytes,
                    static_cast<size_t>(weight_bytes));
      }
      ++valid;
    }
    Buffer(Column::VALID_COUNT)[static_cast<size_t>(to)] = static_cast<char>(valid);
    chunk_missing_ids_ += top_k_ - valid;
    return absl::OkStatus();
  }

  // Copies `count` entries of `entry_bytes` from entry `from` of a column to entry `to` of a buffer.
  template <typename Entry>
  static void CopyBytes(absl::Span<const Entry> column, int64_t entry_bytes, int64_t from, int64_t to, int64_t count,
                        std::string& buffer) {
    if (column.empty()) return;
    std::memcpy(buffer.data() + to * entry_bytes, reinterpret_cast<const char*>(column.data()) + from * entry_bytes,
                static_cast<size_t>(count * entry_bytes));
  }

  void CopyTokenColumns(const TokenColumns& columns, int64_t from, int64_t count) {
    CopyBytes(columns.position, 4, from, chunk_tokens_, count, Buffer(Column::POSITION));
    CopyBytes(columns.request_index, 4, from, chunk_tokens_, count, Buffer(Column::REQUEST_INDEX));
    CopyBytes(columns.phase, 1, from, chunk_tokens_, count, Buffer(Column::TOKEN_PHASE));
    CopyBytes(columns.source_rank, 2, from, chunk_tokens_, count, Buffer(Column::SOURCE_RANK));
  }

  void AddRequest(RequestInfo info) {
    request_bytes_ += static_cast<int64_t>(info.ByteSizeLong()) + 4;
    *chunk_.add_requests() = std::move(info);
    ++requests_;
  }

  absl::Status WriteChunk() {
    chunk_.set_first_token(tokens_written_);
    chunk_.set_tokens(chunk_tokens_);
    if (header_.granularity() == STEP) chunk_.set_step(steps_);
    chunk_kinds_[Column::VALID_COUNT] = chunk_missing_ids_ > 0;
    chunk_kinds_[Column::IDS] = header_.granularity() != COUNTS;
    chunk_kinds_[Column::COUNT] = header_.granularity() == COUNTS;
    payload_.clear();
    for (int kind = Column::IDS; kind <= Column::COUNT; ++kind) {
      std::string& buffer = Buffer(static_cast<Column::Kind>(kind));
      if (chunk_kinds_[static_cast<size_t>(kind)]) {
        Column& column = *chunk_.add_columns();
        column.set_kind(static_cast<Column::Kind>(kind));
        column.set_bytes(buffer.size());
        payload_.append(buffer);
        payload_.resize(Aligned(payload_.size()));
      }
      buffer.clear();
    }
    chunk_.set_raw_bytes(payload_.size());
    std::string_view stored = payload_;
    if (options_.zstd) {
      compressed_.resize(ZSTD_compressBound(payload_.size()));
      const size_t size = ZSTD_compressCCtx(compressor_.get(), compressed_.data(), compressed_.size(), payload_.data(),
                                            payload_.size(), options_.zstd_level);
      if (ZSTD_isError(size)) return absl::InternalError(absl::StrCat(path_, ": zstd: ", ZSTD_getErrorName(size)));
      if (size < payload_.size()) {
        stored = std::string_view(compressed_).substr(0, size);
        chunk_.set_codec(ChunkHeader::ZSTD);
      }
    }
    chunk_.set_payload_xxh3(Xxh3(stored));

    RETURN_IF_ERROR(file_.WriteChunk(chunk_, stored, &index_));
    tokens_written_ += chunk_tokens_;
    missing_ids_ += std::exchange(chunk_missing_ids_, 0);
    chunk_tokens_ = 0;
    request_bytes_ = 0;
    chunk_.Clear();
    return absl::OkStatus();
  }

  FrameWriter file_;
  const std::string path_;
  const TraceHeader header_;
  const TraceWriterOptions options_;
  const int64_t layers_, top_k_;
  int64_t tokens_per_chunk_;
  absl::Status failure_;  // What made the writer unusable.

  int64_t tokens_ = 0;          // Rows taken: of a COUNTS trace, steps.
  int64_t tokens_written_ = 0;  // Of these, those in chunks that are closed.
  int64_t steps_ = 0, requests_ = 0, missing_ids_ = 0;
  TraceIndex index_;

  ChunkHeader chunk_;
  Kinds chunk_kinds_{};
  int64_t chunk_tokens_ = 0, chunk_missing_ids_ = 0, request_bytes_ = 0;
  std::array<std::string, Column::COUNT + 1> buffers_;  // By Column::Kind.
  std::string payload_, compressed_;

  std::vector<int64_t> seen_in_;  // By expert: the last top-k that has it, as top_ks_ counts them.
  int64_t top_ks_ = 0;
  std::unique_ptr<ZSTD_CCtx, size_t (*)(ZSTD_CCtx*)> compressor_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TraceWriter>> TraceWriter::Create(const std::string& path, const TraceHeader& header,
                                                                 const TraceWriterOptions& options) {
  TraceHeader complete = header;
  if (complete.schema_version() == 0) complete.set_schema_version(kTraceSchemaVersion);
  if (complete.id_bytes() == 0) complete.set_id_bytes(complete.experts() <= 256 ? 1 : 2);
  RETURN_IF_ERROR(InFile(path, CheckTraceHeader(complete)));
  if (!IsUtf8(header.model()) || !IsUtf8(header.source()) || !IsUtf8(header.synthetic())) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": a text of the header is not UTF-8"));
  }
  if (options.chunk_bytes < 1 || options.chunk_bytes > kMaxChunkBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": chunk_bytes is ", options.chunk_bytes, ", not between 1 and ", kMaxChunkBytes));
  }
  ASSIGN_OR_RETURN(FrameWriter file, FrameWriter::Create(path));
  auto writer = std::make_unique<EptraceWriter>(std::move(file), path, complete, options);
  RETURN_IF_ERROR(writer->WriteStart());
  return writer;
}

}  // namespace epsim
