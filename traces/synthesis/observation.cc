#include "traces/synthesis/observation.h"

#include <algorithm>
#include <cstddef>
#include <unordered_map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/progress.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

class Observer {
 public:
  Observer(const TraceReader& trace, int64_t most_histogram_bytes)
      : trace_(trace),
        header_(trace.header()),
        layers_(header_.layers()),
        experts_(header_.experts()),
        top_k_(header_.top_k()),
        most_histograms_(
            std::max<int64_t>(64, most_histogram_bytes / (int64_t{4} * header_.layers() * header_.experts()))) {
    result_.followers.assign(layers_, 0);
    result_.shared.assign(layers_, 0);
    result_.tokens_of_rank.assign(std::max<uint32_t>(1, header_.source_ranks()), 0);
    row_.resize(static_cast<size_t>(layers_) * (top_k_ + 1));
    mark_.assign(experts_, 0);
  }

  absl::StatusOr<Observation> Run(const StopToken& stop) {
    Progress progress("reading", trace_.index().tokens());
    for (int64_t c = 0; c < trace_.index().chunks_size(); ++c) {
      RETURN_IF_ERROR(stop.Check());
      ASSIGN_OR_RETURN(const TraceChunk chunk, trace_.ReadChunk(c));
      if (header_.granularity() == STEP) {
        VisitStep(chunk);
      } else {
        VisitRequests(chunk);
      }
      progress.Set(chunk.first_token + chunk.tokens);
    }
    // A request of a STEP trace may have been announced and have no token.
    if (header_.granularity() == STEP) result_.steps = trace_.index().steps();
    return std::move(result_);
  }

 private:
  // Of a request whose tokens are still coming.
  struct Open {
    int64_t request = -1;  // In result_.requests.
    int64_t last_step = 0;
    std::vector<uint16_t> previous;  // The last token's ids: per layer the number of them, then [top_k].
  };

  void VisitRequests(const TraceChunk& chunk) {
    for (int64_t t = 0; t < chunk.tokens; ++t) {
      const int64_t token = chunk.first_token + t;
      while (next_request_ < trace_.requests().size() && trace_.requests()[next_request_].first_token() <= token) {
        const RequestInfo& info = trace_.requests()[next_request_++];
        if (info.tokens() > 0) Begin(single_, info);
      }
      if (single_.request < 0) Begin(single_, RequestInfo());
      Visit(chunk, t, single_);
    }
  }

  void VisitStep(const TraceChunk& chunk) {
    if (chunk.step >= next_sweep_) ForgetEnded(chunk.step);
    int rank_before = -1;
    for (int64_t t = 0; t < chunk.tokens; ++t) {
      const int rank = chunk.source_rank == nullptr ? 0 : chunk.source_rank[t];
      if (rank < static_cast<int>(result_.tokens_of_rank.size())) ++result_.tokens_of_rank[rank];
      if (chunk.request_index != nullptr) {
        Open& open = open_[chunk.request_index[t]];
        if (open.request < 0) {
          RequestInfo info = trace_.requests()[chunk.request_index[t]];
          if (chunk.position != nullptr) info.set_prompt_tokens(chunk.position[t]);
          Begin(open, info);
        }
        open.last_step = chunk.step;
        Visit(chunk, t, open);
        continue;
      }
      const bool decode = chunk.phase != nullptr && chunk.phase[t] == DECODE;
      if (decode || rank != rank_before || chunk.step != step_before_) {
        RequestInfo info;
        if (decode && chunk.position != nullptr) info.set_prompt_tokens(chunk.position[t]);
        Begin(single_, info);
      }
      rank_before = decode ? -1 : rank;
      step_before_ = chunk.step;
      Visit(chunk, t, single_);
    }
  }

  // Frees the ids of requests that were not seen for long; a trace does not say that a request has ended.
  void ForgetEnded(int64_t step) {
    constexpr int64_t kLong = 1024;
    for (auto& [index, open] : open_) {
      if (open.last_step + kLong < step) std::vector<uint16_t>().swap(open.previous);
    }
    next_sweep_ = step + kLong;
  }

  void Begin(Open& open, const RequestInfo& info) {
    open.request = static_cast<int64_t>(result_.requests.size());
    open.previous.clear();
    ObservedRequest& request = result_.requests.emplace_back();
    request.domain = info.domain();
    request.length.set_context_tokens(static_cast<uint32_t>(info.prompt_tokens()));
    if (open.request % result_.stride != 0) return;
    if (static_cast<int64_t>(result_.histograms.size()) >= most_histograms_) {
      // Keep every second one.
      std::vector<std::vector<uint32_t>>& all = result_.histograms;
      for (size_t h = 0; 2 * h < all.size(); ++h) std::swap(all[h], all[2 * h]);
      all.resize((all.size() + 1) / 2);
      result_.stride *= 2;
      if (open.request % result_.stride != 0) return;
    }
    result_.histograms.emplace_back(static_cast<size_t>(layers_) * experts_, 0u);
  }

  void Visit(const TraceChunk& chunk, int64_t token, Open& open) {
    ++result_.tokens;
    RequestLength& length = result_.requests[open.request].length;
    const int phase = chunk.phase == nullptr ? int{PHASE_UNKNOWN} : int{chunk.phase[token]};
    if (phase == PREFILL) {
      length.set_prefill_tokens(length.prefill_tokens() + 1);
    } else if (phase == DECODE) {
      length.set_decode_tokens(length.decode_tokens() + 1);
    } else {
      length.set_unknown_tokens(length.unknown_tokens() + 1);
    }

    std::vector<uint32_t>* histogram = nullptr;
    if (open.request % result_.stride == 0) histogram = &result_.histograms[open.request / result_.stride];
    const bool follows = !open.previous.empty();
    const bool by_layer = header_.granularity() == STEP;
    for (int l = 0; l < layers_; ++l) {
      const int64_t place = by_layer ? l * chunk.tokens + token : token * layers_ + l;
      const int count = chunk.valid_count == nullptr ? top_k_ : chunk.valid_count[place];
      uint16_t* const ids = row_.data() + static_cast<size_t>(l) * (top_k_ + 1);
      ids[0] = static_cast<uint16_t>(count);
      for (int i = 0; i < count; ++i) {
        const size_t at = static_cast<size_t>(place) * top_k_ + i;
        ids[1 + i] = header_.id_bytes() == 1 ? reinterpret_cast<const uint8_t*>(chunk.ids)[at]
                                             : reinterpret_cast<const uint16_t*>(chunk.ids)[at];
        if (histogram != nullptr) ++(*histogram)[static_cast<size_t>(l) * experts_ + ids[1 + i]];
      }
      if (!follows) continue;
      const uint16_t* const before = open.previous.data() + static_cast<size_t>(l) * (top_k_ + 1);
      ++now_;
      for (int i = 0; i < before[0]; ++i) mark_[before[1 + i]] = now_;
      result_.followers[l] += count;
      for (int i = 0; i < count; ++i) result_.shared[l] += mark_[ids[1 + i]] == now_;
    }
    open.previous.resize(row_.size());
    std::swap(open.previous, row_);
  }

  const TraceReader& trace_;
  const TraceHeader& header_;
  const int layers_, experts_, top_k_;
  const int64_t most_histograms_;
  Observation result_;
  Open single_;
  std::unordered_map<uint32_t, Open> open_;  // By request index; looked up only.
  size_t next_request_ = 0;
  int64_t step_before_ = -1, next_sweep_ = 0;
  std::vector<uint16_t> row_;
  std::vector<int64_t> mark_;
  int64_t now_ = 0;
};

}  // namespace

absl::StatusOr<Observation> ObserveTrace(const TraceReader& trace, int64_t most_histogram_bytes,
                                         const StopToken& stop) {
  const Granularity granularity = trace.header().granularity();
  if (granularity != REQUEST && granularity != STEP) {
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": granularity ", Granularity_Name(granularity),
                                                   ": has no ids per token, to which a synthesis could be fitted"));
  }
  if (trace.index().tokens() == 0) return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": has no tokens"));
  return Observer(trace, most_histogram_bytes).Run(stop);
}

}  // namespace epsim
