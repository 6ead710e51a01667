// Which tokens run on which rank in each step of a replay, worked out from a trace file token by token: what the step
// sources must come to, by the shortest way to it.
#pragma once

#include <cstdint>
#include <vector>

#include "traces/format/trace_reader.h"
#include "traces/workload/workload.pb.h"

namespace epsim {

struct ExpectedToken {
  int rank = 0;
  std::vector<std::vector<int>> experts;  // [layers], each of 0 to top_k.
};

struct ExpectedStep {
  std::vector<ExpectedToken> tokens;  // Empty in a COUNTS trace.
  std::vector<uint32_t> counts;       // [layers, experts]
};

// REQUIRES: raw chunks; requests fit into the token budget of a step whole, and are as many as run at once or more.
std::vector<ExpectedStep> ExpectedSteps(const TraceReader& trace, const WorkloadConfig& workload, int ranks);

}  // namespace epsim
