// Expert choice only where it can repay its kernel: in layers whose load is skewed, while the batch is large.
#pragma once

#include <memory>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "policies/routing/routing_policy.h"

namespace epsim {

// A layer is routed by expert choice in a step if both hold, else as the router chose:
// - the batches are large: so since the last step of more than on_above_tokens tokens, until one of fewer than
//   off_below_tokens (hysteresis; off at first, and on one rank always);
// - Variation() of the layer's load, summed over the last window_steps steps (fewer at the beginning, not none), is
//   above variation_threshold.  It is the load that the router asked for, whether or not it was served: were it the
//   load as routed, expert choice would switch itself off.
std::unique_ptr<RoutingPolicy> NewAdaptiveRouting(const AdaptiveRouting& complete, const RoutingShape& shape);

// Fills in defaults.
absl::Status CompleteAdaptiveRouting(AdaptiveRouting* config);

// Coefficient of variation: population standard deviation / mean of `load`; 0 where all are zero.
double Variation(absl::Span<const int64_t> load);

}  // namespace epsim
