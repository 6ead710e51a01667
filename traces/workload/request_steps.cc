#include "traces/workload/request_steps.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"
#include "traces/workload/row_planes.h"
#include "traces/workload/trace_rows.h"

namespace epsim {
namespace {

class RequestSteps final : public StepSource {
 public:
  RequestSteps(const CompositionRules& rules, const TraceReader& trace, std::vector<SupplyEntry> supply,
               int64_t runnable, bool resampled, const StepContents& contents)
      : rules_(rules),
        contents_(contents),
        rows_(trace),
        supply_(std::move(supply)),
        runnable_(runnable),
        resampled_(resampled),
        composer_(rules, trace.requests(), supply_, Prefill()),
        chunk_of_place_(static_cast<size_t>(rules.ranks) * static_cast<size_t>(rules.requests_per_rank)) {
    batch_.layers = static_cast<int>(trace.header().layers());
    batch_.top_k = static_cast<int>(trace.header().top_k());
    batch_.id_bytes = static_cast<int>(trace.header().id_bytes());
    if (contents.scores) batch_.score_format = trace.header().scores();
  }

  // Composes the whole replay without its ids.
  absl::Status CountSteps(int64_t max_steps, const StopToken& stop) {
    const auto prefill = [this, &stop](const RequestInfo& request) -> absl::StatusOr<int64_t> {
      RETURN_IF_ERROR(stop.Check());
      return rows_.PrefillRows(request);
    };
    RequestComposer composer(rules_, rows_.trace().requests(), supply_, prefill);
    ComposedStep step;
    while (max_steps == 0 || total_steps_ < max_steps) {
      if (total_steps_ % 64 == 0) RETURN_IF_ERROR(stop.Check());
      ASSIGN_OR_RETURN(const bool more, composer.Next(&step));
      if (!more) break;
      ++total_steps_;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<const StepBatch*> Next(SimTime /*now*/) override {
    if (next_index_ == total_steps_) return nullptr;
    ASSIGN_OR_RETURN(const bool more, composer_.Next(&step_));
    EPSIM_CHECK(more);
    RETURN_IF_ERROR(Locate());
    Gather();
    batch_.index = next_index_++;
    return &batch_;
  }

  std::optional<int64_t> total_steps() const override { return total_steps_; }

  std::string description() const override {
    const int64_t places = static_cast<int64_t>(chunk_of_place_.size());
    const std::string shape =
        absl::StrCat(rules_.lock_step ? "lock-step, groups of " : "continuous, ", rules_.requests_per_rank,
                     rules_.lock_step ? " requests a rank on " : " running requests a rank on ", rules_.ranks,
                     " ranks, at most ", rules_.max_tokens_per_rank, " tokens a rank and step");
    if (resampled_) {
      return absl::StrCat(shape, ", resampled: ", supply_.size(), " requests drawn with replacement from the trace's ",
                          runnable_, " because ", places, " run at once",
                          rules_.lock_step ? "" : ", each place's first from a random token on");
    }
    return absl::StrCat(shape, ", the trace's ", runnable_, " requests in order");
  }

  bool resampled() const override { return resampled_; }

 private:
  RequestComposer::PrefillRows Prefill() {
    return [this](const RequestInfo& request) { return rows_.PrefillRows(request); };
  }

  // Finds the row of every token, and what attention does on every rank.
  absl::Status Locate() {
    const size_t row_bytes =
        static_cast<size_t>(batch_.layers) * static_cast<size_t>(batch_.top_k) * static_cast<size_t>(batch_.id_bytes);
    const size_t layers = static_cast<size_t>(batch_.layers);
    row_ids_.clear();
    row_valid_.clear();
    batch_.scores.clear();
    any_missing_ = false;
    batch_.rank_begin.assign(1, 0);
    batch_.attention.assign(static_cast<size_t>(rules_.ranks), AttentionLoad());
    for (int rank = 0; rank < rules_.ranks; ++rank) {
      AttentionLoad& load = batch_.attention[rank];
      for (int i = step_.piece_begin[rank]; i < step_.piece_begin[rank + 1]; ++i) {
        const RequestPiece& piece = step_.pieces[i];
        const RequestInfo& request = rows_.trace().requests()[piece.request];
        uint32_t* const chunk_of_place = &chunk_of_place_[piece.place];
        const int64_t end = piece.first_row + piece.tokens;
        int64_t last_position = 0;
        for (int64_t row = piece.first_row; row < end;) {
          ASSIGN_OR_RETURN(const TraceChunk* chunk, rows_.Find(row, chunk_of_place));
          const int64_t span_end = std::min(end, chunk->first_token + chunk->tokens);
          const int64_t tokens = span_end - row;
          const int64_t first_position = chunk->position != nullptr
                                             ? int64_t{chunk->position[row - chunk->first_token]}
                                             : request.prompt_tokens() + row - request.first_token();
          last_position = first_position + tokens - 1;
          // Sum of p + 1 for p from first to last.
          load.attended_tokens += tokens * (first_position + last_position + 2) / 2;
          if (contents_.scores) RETURN_IF_ERROR(LocateScores(*chunk, row, span_end));
          for (; row < span_end; ++row) {
            const int64_t at = row - chunk->first_token;
            row_ids_.push_back(chunk->ids + static_cast<size_t>(at) * row_bytes);
            row_valid_.push_back(chunk->valid_count == nullptr
                                     ? nullptr
                                     : reinterpret_cast<const std::byte*>(chunk->valid_count) +
                                           static_cast<size_t>(at) * layers);
            any_missing_ |= chunk->valid_count != nullptr;
          }
        }
        load.tokens += piece.tokens;
        ++load.sequences;
        if (piece.tokens == 1) ++load.decode_tokens;
        load.context_tokens += last_position + 1;
        load.output_tokens += piece.output_tokens;
      }
      batch_.rank_begin.push_back(static_cast<int32_t>(row_ids_.size()));
    }
    batch_.tokens = static_cast<int>(row_ids_.size());
    return absl::OkStatus();
  }

  // Where the scores of the rows [row, end) lie, all in `chunk`.
  absl::Status LocateScores(const TraceChunk& chunk, int64_t row, int64_t end) {
    const TraceHeader& header = rows_.trace().header();
    if (chunk.scores == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat(rows_.trace().path(), ": row ", row, ": its chunk has no scores of the router"));
    }
    const size_t bytes = static_cast<size_t>(header.experts()) * static_cast<size_t>(NumberBytes(header.scores()));
    for (; row < end; ++row) {
      batch_.scores.push_back(
          {chunk.scores + static_cast<size_t>(row - chunk.first_token) * header.layers() * bytes, bytes});
    }
    return absl::OkStatus();
  }

  void Gather() {
    const size_t tokens = row_ids_.size();
    const size_t layers = static_cast<size_t>(batch_.layers);
    const size_t element = static_cast<size_t>(batch_.top_k) * static_cast<size_t>(batch_.id_bytes);
    const size_t stride = PlaneStride(tokens, element);
    if (planes_.size() < layers * stride) planes_.resize(layers * stride);
    RowsToPlanes(row_ids_, layers, element, stride, planes_.data());
    batch_.ids = planes_.data();
    batch_.layer_stride = stride;
    batch_.valid_count = nullptr;
    if (!any_missing_) return;
    // A chunk without the column has all ids of all tokens.
    complete_row_.assign(layers, static_cast<std::byte>(batch_.top_k));
    for (const std::byte*& row : row_valid_) {
      if (row == nullptr) row = complete_row_.data();
    }
    valid_.resize(layers * tokens);
    RowsToPlanes(row_valid_, layers, 1, tokens, valid_.data());
    batch_.valid_count = reinterpret_cast<const uint8_t*>(valid_.data());
  }

  const CompositionRules rules_;
  const StepContents contents_;
  TraceRows rows_;
  const std::vector<SupplyEntry> supply_;
  const int64_t runnable_;  // Requests of the trace that have tokens.
  const bool resampled_;
  int64_t total_steps_ = 0, next_index_ = 0;

  RequestComposer composer_;
  ComposedStep step_;
  std::vector<uint32_t> chunk_of_place_;               // [places]: of the last row, where the next is looked for first.
  std::vector<const std::byte*> row_ids_, row_valid_;  // [tokens] of the step.
  bool any_missing_ = false;
  std::vector<std::byte> planes_, valid_, complete_row_;
  StepBatch batch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StepSource>> NewRequestSteps(const CompositionRules& rules, int64_t max_steps,
                                                            const TraceReader& trace, uint64_t seed,
                                                            const StopToken& stop, const StepContents& contents) {
  std::vector<SupplyEntry> supply;
  for (size_t i = 0; i < trace.requests().size(); ++i) {
    const RequestInfo& request = trace.requests()[i];
    if (request.tokens() < 0 || request.first_token() < 0 ||
        request.first_token() > trace.index().tokens() - request.tokens()) {
      return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": request ", i, ": rows ", request.first_token(),
                                                     " to ", request.first_token() + request.tokens(),
                                                     " are outside the trace's ", trace.index().tokens(), " rows"));
    }
    if (request.tokens() > 0) supply.push_back({static_cast<uint32_t>(i), 0});
  }
  const int64_t runnable = static_cast<int64_t>(supply.size());
  if (runnable == 0) return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": no request has a token"));
  const int64_t places = int64_t{rules.ranks} * rules.requests_per_rank;
  const bool resampled = places > runnable;
  if (resampled) {
    RandomStream random(seed, "workload.resample");
    std::vector<SupplyEntry> drawn(static_cast<size_t>(rules.lock_step ? places : 2 * places));
    for (SupplyEntry& entry : drawn) entry = supply[random.Below(static_cast<uint64_t>(runnable))];
    // Copies of one request that started together would route together for ever: continuous batching begins in the
    // middle of its first requests, as a window of a running engine does.
    for (int64_t place = 0; place < places && !rules.lock_step; ++place) {
      SupplyEntry& entry = drawn[static_cast<size_t>(place)];
      entry.skipped =
          static_cast<int64_t>(random.Below(static_cast<uint64_t>(trace.requests()[entry.request].tokens())));
    }
    supply = std::move(drawn);
  }
  auto steps = std::make_unique<RequestSteps>(rules, trace, std::move(supply), runnable, resampled, contents);
  RETURN_IF_ERROR(steps->CountSteps(max_steps, stop));
  return steps;
}

}  // namespace epsim
