#include "traces/workload/recorded_steps.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "traces/format/chunk_layout.h"
#include "traces/workload/recorded_attention.h"
#include "traces/workload/row_planes.h"

namespace epsim {
namespace {

// How many steps the chunks hold.
int64_t CountSteps(const TraceIndex& index) {
  int64_t steps = 0;
  for (int i = 0; i < index.chunks_size(); ++i) {
    if (i == 0 || index.chunks(i).step() != index.chunks(i - 1).step()) ++steps;
  }
  return steps;
}

class RecordedSteps final : public StepSource {
 public:
  // `first`: the trace's first chunk; all chunks have source ranks if it has.
  RecordedSteps(int64_t max_steps, const TraceReader& trace, const TraceChunk& first, int ranks,
                const StepContents& contents)
      : trace_(trace),
        ranks_(ranks),
        contents_(contents),
        has_source_rank_(first.source_rank != nullptr),
        has_contexts_(first.position != nullptr),
        source_ranks_(has_source_rank_ ? static_cast<int>(trace.header().source_ranks()) : 0),
        total_steps_(CountSteps(trace.index())) {
    if (max_steps > 0) total_steps_ = std::min(total_steps_, max_steps);
    batch_.layers = static_cast<int>(trace.header().layers());
    batch_.top_k = static_cast<int>(trace.header().top_k());
    batch_.id_bytes = static_cast<int>(trace.header().id_bytes());
    if (contents.scores) batch_.score_format = trace.header().scores();
  }

  absl::StatusOr<const StepBatch*> Next(SimTime /*now*/) override {
    if (next_index_ == total_steps_) return nullptr;
    RETURN_IF_ERROR(ReadChunks());
    Order();
    if (chunks_.size() == 1 && ordered_) {
      UseInPlace();
    } else {
      Assemble();
    }
    batch_.attention.clear();
    for (int rank = 0; rank < ranks_; ++rank) {
      batch_.attention.push_back(attention_.Of(tokens_, batch_.rank_begin[rank], batch_.rank_begin[rank + 1]));
    }
    batch_.index = next_index_++;
    return &batch_;
  }

  std::optional<int64_t> total_steps() const override { return total_steps_; }

  std::string description() const override {
    std::string ranks;
    if (source_ranks_ == 0) {
      ranks = absl::StrCat("source ranks not recorded: each step's tokens dealt evenly over ", ranks_, " ranks");
    } else if (source_ranks_ == ranks_) {
      ranks = absl::StrCat("on the ", ranks_, " ranks of the capture");
    } else if (source_ranks_ > ranks_) {
      ranks = absl::StrCat("captured on ", source_ranks_, " ranks, merged onto ", ranks_,
                           ": source rank s to rank s * ", ranks_, " / ", source_ranks_);
    } else {
      ranks = absl::StrCat("captured on ", source_ranks_, " ranks, each dealt evenly over ", ranks_ / source_ranks_,
                           " of ", ranks_);
    }
    return absl::StrCat("recorded, ", total_steps_, " steps as captured, ", ranks,
                        has_contexts_ ? "" : "; contexts not recorded: counted from each sequence's first token");
  }

  bool resampled() const override { return false; }

 private:
  // Tokens that lie together both in a chunk and in the batch.
  struct Run {
    size_t chunk = 0;
    int64_t first = 0, tokens = 0;  // In the chunk.
    int64_t to = 0;                 // In the batch.
  };

  // Groups of source ranks that no rank shares: the source ranks themselves, or the ranks where those are fewer.
  int groups() const { return has_source_rank_ ? std::min(source_ranks_, ranks_) : 1; }
  int64_t GroupOf(const TraceChunk& chunk, int64_t token) const {
    if (!has_source_rank_) return 0;
    const int64_t source = chunk.source_rank[token];
    return source_ranks_ <= ranks_ ? source : source * ranks_ / source_ranks_;
  }

  // The chunks of the next step, with what they have in common.
  absl::Status ReadChunks() {
    const TraceIndex& index = trace_.index();
    const int first_chunk = next_chunk_;
    const int64_t step = index.chunks(first_chunk).step();
    int64_t tokens = 0;
    chunks_.clear();
    while (next_chunk_ < index.chunks_size() && index.chunks(next_chunk_).step() == step) {
      ASSIGN_OR_RETURN(const TraceChunk chunk, trace_.ReadChunk(next_chunk_++));
      chunks_.push_back(chunk);
      tokens += chunk.tokens;
    }
    if (tokens > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat(trace_.path(), ": step ", step, ": ", tokens, " tokens are more than a step can have"));
    }
    batch_.tokens = static_cast<int>(tokens);
    has_position_ = has_request_ = has_phase_ = true;
    has_missing_ = false;
    for (size_t c = 0; c < chunks_.size(); ++c) {
      const TraceChunk& chunk = chunks_[c];
      has_position_ = has_position_ && chunk.position != nullptr;
      has_request_ = has_request_ && chunk.request_index != nullptr;
      has_phase_ = has_phase_ && chunk.phase != nullptr;
      has_missing_ = has_missing_ || chunk.valid_count != nullptr;
      if (contents_.scores && chunk.scores == nullptr) {
        return absl::InvalidArgumentError(
            absl::StrCat(trace_.path(), ": chunk ", first_chunk + c, ": step ", step, " has no scores of the router"));
      }
      if ((chunk.source_rank != nullptr) != has_source_rank_) {
        return absl::InvalidArgumentError(absl::StrCat(trace_.path(), ": chunk ", first_chunk + c, ": step ", step,
                                                       has_source_rank_
                                                           ? " has no source ranks, steps before it have"
                                                           : " has source ranks, steps before it have none"));
      }
      for (int64_t t = 0; has_source_rank_ && t < chunk.tokens; ++t) {
        if (chunk.source_rank[t] >= source_ranks_) {
          return absl::InvalidArgumentError(absl::StrCat(trace_.path(), ": chunk ", first_chunk + c, ": token ", t,
                                                         ": source rank ", chunk.source_rank[t],
                                                         " of a trace captured on ", source_ranks_, " ranks"));
        }
      }
    }
    return absl::OkStatus();
  }

  // Which rank owns what, and whether the tokens lie in that order.
  void Order() {
    const int groups = this->groups();
    group_begin_.assign(static_cast<size_t>(groups) + 1, 0);
    ordered_ = true;
    int64_t last = 0;
    for (const TraceChunk& chunk : chunks_) {
      if (!has_source_rank_) {
        group_begin_[1] += chunk.tokens;
        continue;
      }
      for (int64_t t = 0; t < chunk.tokens; ++t) {
        const int64_t group = GroupOf(chunk, t);
        ordered_ = ordered_ && group >= last;
        last = group;
        ++group_begin_[group + 1];
      }
    }
    for (int g = 0; g < groups; ++g) group_begin_[g + 1] += group_begin_[g];
    // Each group is dealt evenly over the ranks it has, 1 or more.
    const int64_t ranks_of_group = ranks_ / groups;
    batch_.rank_begin.clear();
    for (int g = 0; g < groups; ++g) {
      const int64_t tokens = group_begin_[g + 1] - group_begin_[g];
      for (int64_t i = 0; i < ranks_of_group; ++i) {
        batch_.rank_begin.push_back(static_cast<int32_t>(group_begin_[g] + tokens * i / ranks_of_group));
      }
    }
    batch_.rank_begin.push_back(batch_.tokens);
  }

  void UseInPlace() {
    const TraceChunk& chunk = chunks_[0];
    batch_.ids = chunk.ids;
    batch_.layer_stride = static_cast<size_t>(chunk.tokens) * element();
    batch_.valid_count = chunk.valid_count;
    tokens_ = {chunk.position, chunk.request_index, chunk.phase};
    if (!contents_.scores) return;
    batch_.scores.resize(static_cast<size_t>(batch_.tokens));
    LocateScores({0, 0, chunk.tokens, 0});
  }

  // Where the scores of the tokens of `run` lie.
  void LocateScores(const Run& run) {
    const TraceChunk& chunk = chunks_[run.chunk];
    const size_t bytes =
        static_cast<size_t>(trace_.header().experts()) * static_cast<size_t>(NumberBytes(trace_.header().scores()));
    for (int64_t t = 0; t < run.tokens; ++t) {
      batch_.scores[static_cast<size_t>(run.to + t)] = {chunk.scores + static_cast<size_t>(run.first + t) * bytes,
                                                        static_cast<size_t>(chunk.tokens) * bytes};
    }
  }

  void Assemble() {
    runs_.clear();
    std::vector<int64_t>& to = group_begin_;  // Where the group's next token goes.
    for (size_t c = 0; c < chunks_.size(); ++c) {
      for (int64_t t = 0; t < chunks_[c].tokens;) {
        const int64_t group = GroupOf(chunks_[c], t);
        Run run{c, t, 0, to[group]};
        if (has_source_rank_) {
          while (t < chunks_[c].tokens && GroupOf(chunks_[c], t) == group) ++t;
        } else {
          t = chunks_[c].tokens;
        }
        run.tokens = t - run.first;
        to[group] += run.tokens;
        runs_.push_back(run);
      }
    }
    const size_t tokens = static_cast<size_t>(batch_.tokens);
    const size_t layers = static_cast<size_t>(batch_.layers);
    const size_t stride = PlaneStride(tokens, element());
    if (planes_.size() < layers * stride) planes_.resize(layers * stride);
    if (has_missing_) valid_.resize(layers * tokens);
    for (size_t layer = 0; layer < layers; ++layer) {
      for (const Run& run : runs_) {
        const TraceChunk& chunk = chunks_[run.chunk];
        const size_t from = layer * static_cast<size_t>(chunk.tokens) + static_cast<size_t>(run.first);
        std::memcpy(planes_.data() + layer * stride + static_cast<size_t>(run.to) * element(),
                    chunk.ids + from * element(), static_cast<size_t>(run.tokens) * element());
        if (!has_missing_) continue;
        uint8_t* valid = valid_.data() + layer * tokens + run.to;
        if (chunk.valid_count != nullptr) {
          std::memcpy(valid, chunk.valid_count + from, static_cast<size_t>(run.tokens));
        } else {
          std::memset(valid, batch_.top_k, static_cast<size_t>(run.tokens));
        }
      }
    }
    batch_.ids = planes_.data();
    batch_.layer_stride = stride;
    batch_.valid_count = has_missing_ ? valid_.data() : nullptr;
    if (contents_.scores) {
      batch_.scores.resize(tokens);
      for (const Run& run : runs_) LocateScores(run);
    }
    tokens_ = {has_position_ ? Collect(&TraceChunk::position, &position_) : nullptr,
               has_request_ ? Collect(&TraceChunk::request_index, &request_) : nullptr,
               has_phase_ ? Collect(&TraceChunk::phase, &phase_) : nullptr};
  }

  // A column of the step's chunks in the order of the batch.
  template <typename T>
  const T* Collect(const T* TraceChunk::*column, std::vector<T>* values) {
    values->resize(static_cast<size_t>(batch_.tokens));
    for (const Run& run : runs_) {
      const T* from = chunks_[run.chunk].*column + run.first;
      std::copy(from, from + run.tokens, values->begin() + run.to);
    }
    return values->data();
  }

  size_t element() const { return static_cast<size_t>(batch_.top_k) * static_cast<size_t>(batch_.id_bytes); }

  const TraceReader& trace_;
  const int ranks_;
  const StepContents contents_;
  const bool has_source_rank_, has_contexts_;  // Recorded in this trace.
  const int source_ranks_;                     // 0: not recorded.
  int64_t total_steps_;
  int64_t next_index_ = 0;
  int next_chunk_ = 0;

  // Of the current step.
  std::vector<TraceChunk> chunks_;
  bool has_position_ = false, has_request_ = false, has_phase_ = false, has_missing_ = false;
  bool ordered_ = false;
  std::vector<int64_t> group_begin_;  // [groups + 1], in the batch.
  std::vector<Run> runs_;
  std::vector<std::byte> planes_;
  std::vector<uint8_t> valid_, phase_;
  std::vector<uint32_t> position_, request_;
  RecordedTokens tokens_;
  RecordedAttention attention_;
  StepBatch batch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StepSource>> NewRecordedSteps(int64_t max_steps, const TraceReader& trace, int ranks,
                                                             const StepContents& contents) {
  const int64_t source_ranks = trace.header().source_ranks();
  if (source_ranks > 0 && source_ranks % ranks != 0 && ranks % source_ranks != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(trace.path(), ": captured on ", source_ranks, " ranks, which do not fold onto ", ranks,
                     ": use a number of ranks that divides ", source_ranks, " or is a multiple of it"));
  }
  if (trace.index().chunks_size() == 0)
    return absl::InvalidArgumentError(absl::StrCat(trace.path(), ": holds no step"));
  ASSIGN_OR_RETURN(const TraceChunk first, trace.ReadChunk(0));
  if (first.source_rank != nullptr && source_ranks == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(trace.path(), ": tokens have source ranks, but the header's source_ranks is 0"));
  }
  return std::make_unique<RecordedSteps>(max_steps, trace, first, ranks, contents);
}

}  // namespace epsim
