// What a fit needs to know of a captured trace, gathered in one pass.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"
#include "traces/format/trace_reader.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {

struct ObservedRequest {
  RequestLength length;
  std::string domain;
};

struct Observation {
  // In order of first appearance.  Where a STEP trace does not say which request a token belongs to, the prefill tokens
  // that one rank has in one step count as one request, and every decode token as one of its own.
  std::vector<ObservedRequest> requests;

  // Every stride-th request has a histogram: ids [layers * experts].
  std::vector<std::vector<uint32_t>> histograms;
  int64_t stride = 1;
  size_t request_of_histogram(size_t h) const { return h * static_cast<size_t>(stride); }

  // Per layer, over all tokens that have a previous one in their request: their ids, and those which that one has too.
  std::vector<int64_t> followers, shared;

  int64_t tokens = 0, steps = 0;
  std::vector<int64_t> tokens_of_rank;  // [source ranks], STEP; one entry if they are not known.
};

// `most_histogram_bytes` bounds the memory of the histograms.  Fails on a trace of counts or without tokens.
absl::StatusOr<Observation> ObserveTrace(const TraceReader& trace, int64_t most_histogram_bytes, const StopToken& stop);

}  // namespace epsim
