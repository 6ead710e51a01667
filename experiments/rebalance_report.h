// What a report says of the rebalances of a run.
#pragma once

#include <deque>
#include <string>

#include "models/simulation/rebalancer.h"
#include "nlohmann/json.hpp"
#include "policies/rebalance/rebalance.pb.h"

namespace epsim {

// {"mode", totals, "events": the first kMostEvents}; null where the placement stays as it is.  Ranks that failed or
// returned are events in every mode; theirs also say how long serving stood still ("out_of_service_us") and how many
// tokens a second the RebalanceRecord::kSpeedSteps steps before and after had, null where there were none.
inline constexpr int kMostEvents = 200;
nlohmann::ordered_json RebalancesJson(const RebalanceConfig& config, const std::deque<RebalanceRecord>& records);

// The same in a few lines of text, each with a new line; empty for null.  Members that failed or returned have a line
// each.
std::string RebalancesText(const nlohmann::ordered_json& rebalances);

// The name of the mode in the schema: "chunked".
std::string RebalanceModeName(const RebalanceConfig& config);

}  // namespace epsim
