// The scheduler of a serving engine, reduced to what decides a batch: which tokens of which requests run in each step.
// It knows rows of a trace, not what is in them, so that a whole replay can be composed in advance to count its steps.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "traces/format/trace.pb.h"

namespace epsim {

struct CompositionRules {
  int ranks = 1;
  int requests_per_rank = 1;        // Places on each rank; a place holds one running request.
  int64_t max_tokens_per_rank = 1;  // In one step.  At least requests_per_rank, so that every decode token fits.
  // false, continuous batching: a place is filled again as soon as its request has ended; the run ends when a place
  // cannot be filled.  true, lock-step: places are filled again when the requests of all places have ended; the run
  // ends when not all can be filled.
  bool lock_step = false;
};

// The tokens that one request gives to one step: rows [first_row, first_row + tokens) of the trace.
struct RequestPiece {
  int64_t first_row = 0;
  int32_t tokens = 0;
  uint32_t request = 0;       // Index into the trace's requests.
  int32_t place = 0;          // rank * requests_per_rank + place on that rank.
  int32_t output_tokens = 0;  // 1 for a decode token and for the piece that ends a prefill, else 0.
};

struct ComposedStep {
  std::vector<RequestPiece> pieces;  // By rank, then by place; none is empty.
  std::vector<int32_t> piece_begin;  // [ranks + 1]: rank r has pieces [piece_begin[r], piece_begin[r + 1]).
};

// A request to run, without its first `skipped` rows: one that was running before the replay began.
struct SupplyEntry {
  uint32_t request = 0;  // Index into the trace's requests.
  int64_t skipped = 0;
};

class RequestComposer {
 public:
  // How many of a request's first rows are prefill; the rest decode one row a step.
  using PrefillRows = std::function<absl::StatusOr<int64_t>(const RequestInfo&)>;

  // `supply`: what to run, each at least one token.  `requests` and `supply` must outlive the composer.
  RequestComposer(const CompositionRules& rules, absl::Span<const RequestInfo> requests,
                  absl::Span<const SupplyEntry> supply, PrefillRows prefill_rows);

  // Composes the next step; false when the run has ended.
  //
  // Empty places are filled from the supply in its order: place 0 of every rank, then place 1 of every rank, and so on
  // (dealt over the ranks, as a data-parallel router does).  On each rank every request that decodes gives one token.
  // What is left of max_tokens_per_rank goes to the requests in prefill, the longest running first, as much as each has
  // (chunked prefill); one that gets nothing waits.
  absl::StatusOr<bool> Next(ComposedStep* step);

 private:
  struct Place {
    int64_t next = 0, decode_begin = 0, end = 0;  // Rows.
    size_t order = 0;                             // Of its request in the supply.
    uint32_t request = 0;
  };

  absl::StatusOr<bool> FillPlaces();
  void ComposeRank(int rank, ComposedStep* step);

  CompositionRules rules_;
  absl::Span<const RequestInfo> requests_;
  absl::Span<const SupplyEntry> supply_;
  PrefillRows prefill_rows_;
  std::vector<Place> places_;  // [ranks, requests_per_rank]
  int64_t empty_;              // Places whose request has ended (at first all).
  size_t taken_ = 0;           // Of the supply.
  bool ended_ = false;
  std::vector<Place*> prefills_;  // Of the rank being composed.
  std::vector<int64_t> granted_;  // [requests_per_rank], prefill tokens.
};

}  // namespace epsim
