// What a run does about its routing policy: whether the trace holds what the policy goes by, the policy at work, and
// what the report says of it.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/simulation/routing_gain.h"
#include "models/simulation/step_routing.h"
#include "nlohmann/json.hpp"
#include "policies/placement/placement.h"
#include "policies/routing/routing_policy.h"
#include "traces/format/trace.pb.h"
#include "traces/workload/step_source.h"

namespace epsim {

// Whether a trace holds what the policy goes by; the error names the trace and says what would do.
absl::Status CheckTraceFitsRouting(const RoutingPolicyConfig& config, const std::string& path,
                                   const TraceHeader& header);

// What the policy needs of each batch.
StepContents ContentsForRouting(const RoutingPolicyConfig& config);

// The policy of a run; null where it routes no token anew.
absl::StatusOr<std::unique_ptr<StepRouting>> NewStepRouting(const RoutingPolicyConfig& config,
                                                            const PlacementShape& shape, int top_k);

// `routing` of summary.json: times are means over the scored steps, in microseconds.
nlohmann::ordered_json RoutingJson(const RoutingPolicyConfig& config, const StepRouting& routing,
                                   const RoutingGain& gain);

// What the reader must know of the policy.
std::vector<std::string> RoutingNotes(const RoutingPolicyConfig& config, const StepRouting& routing);

// The lines of the answer that show `routing`.
std::string RoutingText(const nlohmann::ordered_json& routing);

}  // namespace epsim
