#include "traces/slice/slice.h"

#include <charconv>
#include <cstring>
#include <filesystem>
#include <memory>
#include <system_error>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"

namespace epsim {
namespace {

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// Some tokens of a trace with all that is known of them, as the writer takes them.
class Excerpt {
 public:
  Excerpt(const TraceHeader& header, SliceRange layers)
      : layers_(layers),
        all_layers_(header.layers()),
        top_k_(header.top_k()),
        id_bytes_(header.id_bytes()),
        weight_bytes_(top_k_ * static_cast<size_t>(NumberBytes(header.gate_weights()))),
        score_bytes_(header.experts() * static_cast<size_t>(NumberBytes(header.scores()))),
        by_layer_(header.granularity() == STEP) {}

  // Becomes `tokens` tokens, to be added.  `first` is any chunk that has some: all have the same columns.
  void Begin(int64_t tokens, const TraceChunk& first) {
    tokens_ = static_cast<size_t>(tokens);
    added_ = 0;
    const size_t cells = tokens_ * kept_layers();
    ids_.resize(cells * top_k_);
    position_.resize(first.position != nullptr ? tokens_ : 0);
    request_index_.resize(first.request_index != nullptr ? tokens_ : 0);
    phase_.resize(first.phase != nullptr ? tokens_ : 0);
    source_rank_.resize(first.source_rank != nullptr ? tokens_ : 0);
    weights_.resize(first.gate_weights != nullptr ? cells * weight_bytes_ : 0);
    scores_.resize(first.scores != nullptr ? cells * score_bytes_ : 0);
  }

  // Adds the tokens [first, first + count) of `chunk`.
  absl::Status Add(const TraceChunk& chunk, int64_t first, int64_t count) {
    if ((chunk.position != nullptr) != !position_.empty() ||
        (chunk.request_index != nullptr) != !request_index_.empty() || (chunk.phase != nullptr) != !phase_.empty() ||
        (chunk.source_rank != nullptr) != !source_rank_.empty() ||
        (chunk.gate_weights != nullptr) != !weights_.empty() || (chunk.scores != nullptr) != !scores_.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat("token ", chunk.first_token + first, ": has other columns than the tokens before it"));
    }
    CopyColumn(chunk.position, first, count, &position_);
    CopyColumn(chunk.request_index, first, count, &request_index_);
    CopyColumn(chunk.phase, first, count, &phase_);
    CopyColumn(chunk.source_rank, first, count, &source_rank_);
    const size_t kept = kept_layers();
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const size_t token = static_cast<size_t>(first) + i;
      for (size_t l = 0; l < kept; ++l) {
        const size_t layer = static_cast<size_t>(layers_.begin) + l;
        const size_t from = by_layer_ ? layer * static_cast<size_t>(chunk.tokens) + token : token * all_layers_ + layer;
        const size_t to = by_layer_ ? l * tokens_ + added_ + i : (added_ + i) * kept + l;
        CopyIds(chunk, from, to);
        if (!weights_.empty()) {
          std::memcpy(&weights_[to * weight_bytes_], chunk.gate_weights + from * weight_bytes_, weight_bytes_);
        }
        if (!scores_.empty()) {
          std::memcpy(&scores_[to * score_bytes_], chunk.scores + from * score_bytes_, score_bytes_);
        }
      }
    }
    added_ += static_cast<size_t>(count);
    return absl::OkStatus();
  }

  const std::vector<int32_t>& ids() const { return ids_; }
  std::vector<uint32_t>& request_index() { return request_index_; }
  TokenColumns columns() const {
    return {.position = position_,
            .request_index = request_index_,
            .phase = phase_,
            .source_rank = source_rank_,
            .gate_weights = weights_,
            .scores = scores_};
  }

 private:
  size_t kept_layers() const { return static_cast<size_t>(layers_.end - layers_.begin); }

  void CopyIds(const TraceChunk& chunk, size_t from, size_t to) {
    const size_t valid = chunk.valid_count == nullptr ? top_k_ : chunk.valid_count[from];
    int32_t* ids = &ids_[to * top_k_];
    for (size_t k = 0; k < top_k_; ++k) {
      uint16_t id = 0;
      std::memcpy(&id, chunk.ids + (from * top_k_ + k) * id_bytes_, id_bytes_);
      ids[k] = k < valid ? int32_t{id} : -1;
    }
  }

  template <typename T>
  void CopyColumn(const T* column, int64_t first, int64_t count, std::vector<T>* to) {
    if (column != nullptr) std::memcpy(to->data() + added_, column + first, static_cast<size_t>(count) * sizeof(T));
  }

  const SliceRange layers_;
  const size_t all_layers_, top_k_, id_bytes_, weight_bytes_, score_bytes_;
  const bool by_layer_;  // [layers, tokens, ...], else [tokens, layers, ...].
  size_t tokens_ = 0, added_ = 0;
  std::vector<int32_t> ids_;
  std::vector<uint32_t> position_, request_index_;
  std::vector<uint8_t> phase_;
  std::vector<uint16_t> source_rank_;
  std::vector<std::byte> weights_, scores_;
};

absl::Status At(const TraceReader& trace, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(trace.path(), ": ", status.message()));
}

absl::Status WriteRequests(const TraceReader& trace, SliceRange requests, SliceRange layers, const StopToken& stop,
                           Progress* progress, TraceWriter* writer) {
  Excerpt excerpt(trace.header(), layers);
  // Requests follow one another, so most lie in the chunk read last.
  TraceChunk chunk;
  for (int64_t r = requests.begin; r < requests.end; ++r) {
    RETURN_IF_ERROR(stop.Check());
    if (progress != nullptr) progress->Set(r - requests.begin);
    const RequestInfo& request = trace.requests()[static_cast<size_t>(r)];
    const int64_t end = request.first_token() + request.tokens();
    for (int64_t row = request.first_token(); row < end;) {
      if (row < chunk.first_token || row >= chunk.first_token + chunk.tokens) {
        ASSIGN_OR_RETURN(chunk, trace.ReadChunk(trace.ChunkOfToken(row)));
      }
      if (row == request.first_token()) excerpt.Begin(request.tokens(), chunk);
      const int64_t chunk_end = chunk.first_token + chunk.tokens;
      const int64_t count = (end < chunk_end ? end : chunk_end) - row;
      if (absl::Status added = excerpt.Add(chunk, row - chunk.first_token, count); !added.ok()) {
        return At(trace, added);
      }
      row += count;
    }
    for (uint32_t& index : excerpt.request_index()) index = static_cast<uint32_t>(r - requests.begin);
    RETURN_IF_ERROR(writer->AppendRequest(request, excerpt.ids(), excerpt.columns()));
  }
  return absl::OkStatus();
}

absl::Status WriteSteps(const TraceReader& trace, SliceRange steps, SliceRange layers, const StopToken& stop,
                        Progress* progress, TraceWriter* writer) {
  const TraceIndex& index = trace.index();
  Excerpt excerpt(trace.header(), layers);
  std::vector<int64_t> new_index(trace.requests().size(), -1);  // By the index in `trace`; -1: not seen yet.
  int64_t kept_requests = 0;
  int chunk = 0;
  for (int64_t step = 0; step < steps.end; ++step) {
    RETURN_IF_ERROR(stop.Check());
    int64_t tokens = 0;
    int end = chunk;
    for (; end < index.chunks_size() && index.chunks(end).step() == index.chunks(chunk).step(); ++end) {
      tokens += index.chunks(end).tokens();
    }
    if (step < steps.begin) {
      chunk = end;
      continue;
    }
    if (progress != nullptr) progress->Set(step - steps.begin);
    for (bool first = true; chunk < end; ++chunk, first = false) {
      ASSIGN_OR_RETURN(const TraceChunk part, trace.ReadChunk(chunk));
      if (first) excerpt.Begin(tokens, part);
      if (absl::Status added = excerpt.Add(part, 0, part.tokens); !added.ok()) return At(trace, added);
    }
    std::vector<RequestInfo> appear;
    for (uint32_t& request : excerpt.request_index()) {
      int64_t& renumbered = new_index[request];
      if (renumbered < 0) {
        renumbered = kept_requests++;
        appear.push_back(trace.requests()[request]);
      }
      request = static_cast<uint32_t>(renumbered);
    }
    RETURN_IF_ERROR(writer->AppendStep(appear, excerpt.ids(), excerpt.columns()));
  }
  return absl::OkStatus();
}

absl::Status WriteCounts(const TraceReader& trace, SliceRange steps, SliceRange layers, const StopToken& stop,
                         Progress* progress, TraceWriter* writer) {
  const size_t experts = trace.header().experts();
  const size_t all_layers = trace.header().layers();
  int64_t first = 0;
  for (int64_t i = 0; i < trace.index().chunks_size() && first < steps.end; ++i) {
    RETURN_IF_ERROR(stop.Check());
    const int64_t count = trace.index().chunks(static_cast<int>(i)).tokens();
    if (first + count > steps.begin) {
      ASSIGN_OR_RETURN(const TraceChunk chunk, trace.ReadChunk(i));
      for (int64_t step = first; step < first + count; ++step) {
        if (step < steps.begin || step >= steps.end) continue;
        const uint32_t* counts =
            chunk.counts +
            (static_cast<size_t>(step - first) * all_layers + static_cast<size_t>(layers.begin)) * experts;
        RETURN_IF_ERROR(writer->AppendCounts({counts, static_cast<size_t>(layers.end - layers.begin) * experts}));
      }
      if (progress != nullptr) progress->Set(first - steps.begin);
    }
    first += count;
  }
  return absl::OkStatus();
}

absl::StatusOr<SliceRange> Checked(const TraceReader& trace, const char* what, const std::optional<SliceRange>& range,
                                   int64_t size) {
  if (!range.has_value()) return SliceRange{0, size};
  if (range->begin < 0 || range->begin >= range->end || range->end > size) {
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": ", what, " ", range->begin, ":", range->end,
                                                   ": the trace has ", what, " 0:", size));
  }
  return *range;
}

}  // namespace

absl::StatusOr<SliceRange> ParseSliceRange(std::string_view text, int64_t size) {
  const auto wrong = [&](std::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", View(text), "\": ", View(why), ", expected a:b within 0:", size));
  };
  const size_t colon = text.find(':');
  if (colon == std::string_view::npos) return wrong("no range");
  SliceRange range{0, size};
  const auto parse = [](std::string_view digits, int64_t* value) {
    if (digits.empty()) return true;
    if (digits[0] == '-') return false;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), *value);
    return error == std::errc() && end == digits.data() + digits.size();
  };
  if (!parse(text.substr(0, colon), &range.begin) || !parse(text.substr(colon + 1), &range.end)) {
    return wrong("not two whole numbers");
  }
  if (range.begin >= range.end) return wrong("an empty range");
  if (range.end > size) return wrong("beyond the end");
  return range;
}

absl::Status SliceTrace(const TraceReader& trace, const SliceSelection& selection, const std::string& out_path,
                        const TraceWriterOptions& options, const StopToken& stop, Progress* progress) {
  TraceHeader header = trace.header();
  const bool by_request = header.granularity() == REQUEST;
  if (by_request && selection.steps.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(trace.path(), ": steps ", selection.steps->begin, ":", selection.steps->end,
                     ": the trace has no steps, only requests 0:", trace.requests().size()));
  }
  if (!by_request && selection.requests.has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat(trace.path(), ": requests ", selection.requests->begin, ":", selection.requests->end,
                     ": the trace is of steps, slice it by steps 0:", trace.index().steps()));
  }
  ASSIGN_OR_RETURN(const SliceRange layers, Checked(trace, "layers", selection.layers, header.layers()));
  ASSIGN_OR_RETURN(const SliceRange requests,
                   Checked(trace, "requests", selection.requests, static_cast<int64_t>(trace.requests().size())));
  ASSIGN_OR_RETURN(const SliceRange steps, Checked(trace, "steps", selection.steps, trace.index().steps()));
  std::error_code ignored;
  if (std::filesystem::equivalent(trace.path(), out_path, ignored)) {
    return absl::InvalidArgumentError(absl::StrCat(out_path, ": is the trace itself; choose another file"));
  }

  std::string cut;
  const auto add = [&cut](const char* what, const std::optional<SliceRange>& range) {
    if (range.has_value()) absl::StrAppend(&cut, cut.empty() ? "" : ", ", what, " ", range->begin, ":", range->end);
  };
  add("requests", selection.requests);
  add("steps", selection.steps);
  add("layers", selection.layers);
  if (!cut.empty()) header.set_source(absl::StrCat(header.source(), header.source().empty() ? "" : " ", "[", cut, "]"));
  header.set_layers(static_cast<uint32_t>(layers.end - layers.begin));

  ASSIGN_OR_RETURN(const std::unique_ptr<TraceWriter> writer, TraceWriter::Create(out_path, header, options));
  const auto write = [&] {
    switch (header.granularity()) {
      case REQUEST:
        return WriteRequests(trace, requests, layers, stop, progress, writer.get());
      case STEP:
        return WriteSteps(trace, steps, layers, stop, progress, writer.get());
      case COUNTS:
        return WriteCounts(trace, steps, layers, stop, progress, writer.get());
      case GRANULARITY_UNKNOWN:
      case Granularity_INT_MIN_SENTINEL_DO_NOT_USE_:
      case Granularity_INT_MAX_SENTINEL_DO_NOT_USE_:
        break;
    }
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": holds neither requests nor steps"));
  };
  absl::Status written = write();
  if (written.ok()) written = writer->Finish();
  if (!written.ok()) writer->Abandon();
  return written;
}

}  // namespace epsim
