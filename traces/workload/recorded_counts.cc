#include <algorithm>
#include <limits>
#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "traces/workload/recorded_steps.h"

namespace epsim {
namespace {

class RecordedCounts final : public StepSource {
 public:
  RecordedCounts(int64_t max_steps, const TraceReader& trace, int ranks) : trace_(trace), ranks_(ranks) {
    for (const TraceIndex::Chunk& chunk : trace.index().chunks()) total_steps_ += chunk.tokens();
    if (max_steps > 0) total_steps_ = std::min(total_steps_, max_steps);
    batch_.layers = static_cast<int>(trace.header().layers());
    batch_.top_k = static_cast<int>(trace.header().top_k());
    batch_.id_bytes = static_cast<int>(trace.header().id_bytes());
  }

  absl::StatusOr<const StepBatch*> Next(SimTime /*now*/) override {
    if (next_index_ == total_steps_) return nullptr;
    while (step_in_chunk_ == chunk_.tokens) {
      ASSIGN_OR_RETURN(chunk_, trace_.ReadChunk(next_chunk_++));
      step_in_chunk_ = 0;
    }
    const size_t experts = trace_.header().experts();
    const size_t layers = static_cast<size_t>(batch_.layers);
    batch_.counts = chunk_.counts + static_cast<size_t>(step_in_chunk_++) * layers * experts;
    int64_t tokens = 0;
    for (size_t layer = 0; layer < layers; ++layer) {
      int64_t pairs = 0;
      for (size_t e = 0; e < experts; ++e) pairs += batch_.counts[layer * experts + e];
      tokens = std::max(tokens, (pairs + batch_.top_k - 1) / batch_.top_k);
    }
    if (tokens > std::numeric_limits<int32_t>::max()) {
      return absl::InvalidArgumentError(
          absl::StrCat(trace_.path(), ": step ", next_index_, ": ", tokens, " tokens are more than a step can have"));
    }
    batch_.tokens = static_cast<int>(tokens);
    batch_.rank_begin.assign(1, 0);
    batch_.attention.clear();
    for (int rank = 0; rank < ranks_; ++rank) {
      batch_.rank_begin.push_back(static_cast<int32_t>(tokens * (rank + 1) / ranks_));
      const int64_t own = batch_.rank_begin[rank + 1] - batch_.rank_begin[rank];
      batch_.attention.push_back({own, own, own, own, own, own});
    }
    batch_.index = next_index_++;
    return &batch_;
  }

  std::optional<int64_t> total_steps() const override { return total_steps_; }

  std::string description() const override {
    return absl::StrCat("recorded, ", total_steps_, " steps of tokens per expert, dealt evenly over ", ranks_,
                        " ranks; contexts not recorded: decode tokens without a past");
  }

  bool resampled() const override { return false; }

 private:
  const TraceReader& trace_;
  const int ranks_;
  int64_t total_steps_ = 0, next_index_ = 0;
  int64_t next_chunk_ = 0;
  TraceChunk chunk_;           // tokens: its steps.
  int64_t step_in_chunk_ = 0;  // The next of them.
  StepBatch batch_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<StepSource>> NewRecordedCounts(int64_t max_steps, const TraceReader& trace, int ranks) {
  return std::make_unique<RecordedCounts>(max_steps, trace, ranks);
}

}  // namespace epsim
