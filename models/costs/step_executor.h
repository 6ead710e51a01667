// A cost model that executes kernels is shown each step before it is asked what the step costs.
#pragma once

#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "engine/stop_token.h"

namespace epsim {

// What a step will ask of the cost model.
struct ExecutedStep {
  int layers = 0, pieces = 0, ranks = 0;  // MoE layers; pieces of the batch, each with a histogram of its own.
  absl::FunctionRef<absl::Span<const int32_t>(int layer, int piece)> tokens_per_slot;  // [slots], rank after rank.
  absl::Span<const int64_t> router_tokens;                                             // [parts, ranks]
};

class StepExecutor {
 public:
  virtual ~StepExecutor() = default;

  // Called for every scored step, in order, while nobody else asks the cost model anything.  Fails where kernels cannot
  // be executed, and as `stop` asks; what has been executed is kept.
  virtual absl::Status Execute(const ExecutedStep& step, const StopToken& stop) = 0;
};

}  // namespace epsim
