// A small trace in memory, and what the tests measure on it.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "traces/format/trace_reader.h"

namespace epsim {

struct WholeTrace {
  TraceHeader header;
  std::vector<RequestInfo> requests;
  int layers = 0, experts = 0, top_k = 0;
  int64_t tokens = 0, steps = 0;
  std::vector<uint16_t> ids;  // [tokens, layers, top_k]
  // [tokens]; empty where not recorded.  `step` is 0 in a REQUEST trace, `request` is always known there.
  std::vector<uint32_t> position, request;
  std::vector<uint8_t> phase;
  std::vector<uint16_t> source_rank;
  std::vector<int64_t> step;

  const uint16_t* at(int64_t token, int layer) const { return ids.data() + (token * layers + layer) * top_k; }
};

absl::StatusOr<WholeTrace> LoadWholeTrace(const std::string& path);

// Tokens per expert of a layer, [experts], of tokens [begin, end).
std::vector<int64_t> ExpertCounts(const WholeTrace& trace, int layer, int64_t begin, int64_t end);
inline std::vector<int64_t> ExpertCounts(const WholeTrace& trace, int layer) {
  return ExpertCounts(trace, layer, 0, trace.tokens);
}

// Mean over ranks / max over ranks of the ids of `tokens` in a layer, experts placed contiguously; mean over layers.
double Balancedness(const WholeTrace& trace, const std::vector<int64_t>& tokens, int ranks);

// Over consecutive rows of one request: mean part of a token's ids that the one before has too, per layer.
std::vector<double> AdjacentOverlap(const WholeTrace& trace);

// Half the sum of absolute differences of the two traces' expert shares, per layer.
std::vector<double> PopularityDistance(const WholeTrace& a, const WholeTrace& b);

}  // namespace epsim
