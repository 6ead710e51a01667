// What a report says of the rebalances of a run.
#pragma once

#include <deque>
#include <string>

#include "models/simulation/rebalancer.h"
#include "nlohmann/json.hpp"
#include "policies/rebalance/rebalance.pb.h"

namespace epsim {

// {"mode", totals, "events": the first kMostEvents}; null where the placement stays as it is.
inline constexpr int kMostEvents = 200;
nlohmann::ordered_json RebalancesJson(const RebalanceConfig& config, const std::deque<RebalanceRecord>& records);

// The same in a few lines of text, each with a new line; empty for null.
std::string RebalancesText(const nlohmann::ordered_json& rebalances);

// The name of the mode in the schema: "chunked".
std::string RebalanceModeName(const RebalanceConfig& config);

}  // namespace epsim
