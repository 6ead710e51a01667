// Histograms of tokens per slot as a trace gives them, for `epsim calibrate`.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/stop_token.h"

namespace epsim {

struct HistogramsOfTrace {
  std::string model;                                  // As the trace names it.
  std::vector<std::vector<int32_t>> tokens_per_slot;  // [histograms][slots]
};

// Up to `most` histograms of one of 8 ranks with the experts in order and none redundant (of fewer than 8 experts, one
// an expert): steps, layers and ranks as far apart as there are.  Requests become steps by default, those of 8 ranks;
// recorded steps stay what they are.  Fails where the trace cannot be read.
absl::StatusOr<HistogramsOfTrace> ReadHistograms(const std::string& trace, int most, const StopToken& stop);

}  // namespace epsim
