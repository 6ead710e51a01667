// What can be said of a routing trace without simulating anything: how skewed its experts are, how balanced contiguous
// placement would leave the ranks, how much consecutive tokens agree.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "traces/format/trace_reader.h"

namespace epsim {

// All figures are of the whole trace together, as if it were one long step.  Layers without a single id are left out of
// every mean over layers.
struct TraceStatistics {
  // Skew of a layer: tokens of its most loaded expert / mean over its experts.  1 where all experts are alike, at most
  // experts / top_k.
  struct Skew {
    double mean = 0;      // Over layers.
    double worst = 0;     // Of the most skewed layer, ...
    int worst_layer = 0;  // ... which is this one (the first of equals).
  };
  // Tokens per rank (token-expert pairs) with the layer's experts placed contiguously, experts / ranks on each: mean
  // over ranks / most loaded rank, averaged over layers.
  struct Balancedness {
    int ranks = 0;
    double tokens = 0;
  };
  // Of pairs of tokens that follow each other in one request: how many of one's ids the other has too, over top_k;
  // averaged over pairs and layers.  In a STEP trace pairs within one step count, and where requests are not recorded,
  // tokens of a prefill follow each other if they do in the step.
  struct Overlap {
    double mean = 0;
    double random = 0;  // top_k / experts: two independent uniform choices.
    int64_t pairs = 0;
  };

  int layers = 0, experts = 0, top_k = 0;
  int64_t tokens = 0;    // COUNTS: token-expert pairs of the busiest layer of each step over top_k, rounded up.
  int64_t steps = 0;     // 0 in a REQUEST trace.
  int64_t requests = 0;  // 0 where not recorded.
  int64_t prefill_tokens = 0, decode_tokens = 0, unknown_phase_tokens = 0;
  int64_t missing_ids = 0;         // Dropped or padded: fewer than top_k.
  int64_t tokens_missing_ids = 0;  // Tokens with one missing in some layer.
  int64_t longest_request = 0;     // Tokens.
  std::map<std::string, int64_t> requests_of_domain;
  bool has_position = false, has_request = false, has_source_rank = false, has_gate_weights = false, has_scores = false;

  std::optional<Skew> skew;                // None if the trace has no ids.
  std::vector<Balancedness> balancedness;  // At 4, 8, 16... ranks, as far as they divide the experts; as skew.
  std::optional<Overlap> overlap;          // None if no token follows another.
  std::vector<uint64_t> tokens_of_expert;  // [layers, experts]
};

// One pass over the chunks; memory does not grow with them.  Fails on a fault in the trace, or Cancelled.  `progress`,
// in chunks, may be null.
absl::StatusOr<TraceStatistics> MeasureTrace(const TraceReader& trace, const StopToken& stop, Progress* progress);

}  // namespace epsim
