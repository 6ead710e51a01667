#include "experiments/rebalance_report.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "experiments/human_bytes.h"

namespace epsim {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kWays[kMoveWays] = {"same_gpu", "node", "network", "host"};

Json EventJson(const RebalanceRecord& record) {
  Json event;
  event["step"] = record.step;
  event["time_us"] = Microseconds(record.time.time_since_epoch());
  event["reason"] = record.reason;
  if (!record.skipped.empty()) {
    event["skipped"] = record.skipped;
    return event;
  }
  event["planning_us"] = Microseconds(record.planning);
  event["stall_us"] = Microseconds(record.stall);
  event["layers_changed"] = record.layers;
  event["slots_moved"] = record.slots;
  for (int way = 0; way < kMoveWays; ++way) event["bytes"][kWays[way]] = record.bytes[way];
  const Json settled = record.settled.has_value() ? Json(Microseconds(*record.settled - record.time)) : Json();
  event["in_force_after_us"] = settled;
  if (!record.membership) return event;
  // Serving stood still until all was in force.
  event["out_of_service_us"] = settled;
  event["tokens_per_s_before"] = record.tokens_per_s_before > 0 ? Json(record.tokens_per_s_before) : Json();
  event["tokens_per_s_after"] = record.tokens_per_s_after.has_value() ? Json(*record.tokens_per_s_after) : Json();
  return event;
}

}  // namespace

std::string RebalanceModeName(const RebalanceConfig& config) {
  const auto* const field =
      config.GetReflection()->GetOneofFieldDescriptor(config, RebalanceConfig::descriptor()->FindOneofByName("mode"));
  return field == nullptr ? "none" : field->name();
}

Json RebalancesJson(const RebalanceConfig& config, const std::deque<RebalanceRecord>& records) {
  const bool elastic = std::any_of(records.begin(), records.end(), [](const auto& record) { return record.membership; });
  if (config.has_none() && !elastic) return nullptr;
  Json json;
  int64_t carried_out = 0, skipped = 0, slots = 0, bytes[kMoveWays] = {};
  Duration planning{}, stall{};
  for (const RebalanceRecord& record : records) {
    ++(record.skipped.empty() ? carried_out : skipped);
    slots += record.slots;
    planning += record.planning;
    stall += record.stall;
    for (int way = 0; way < kMoveWays; ++way) bytes[way] += record.bytes[way];
  }
  json["mode"] = RebalanceModeName(config);
  json["carried_out"] = carried_out;
  json["skipped"] = skipped;
  json["planning_us"] = Microseconds(planning);
  json["stall_us"] = Microseconds(stall);
  json["slots_moved"] = slots;
  for (int way = 0; way < kMoveWays; ++way) json["bytes"][kWays[way]] = bytes[way];
  json["events"] = Json::array();
  for (const RebalanceRecord& record : records) {
    if (json["events"].size() == kMostEvents) break;
    json["events"].push_back(EventJson(record));
  }
  return json;
}

std::string RebalancesText(const Json& rebalances) {
  if (rebalances.is_null()) return "";
  std::string text = absl::StrFormat(
      "  rebalances        %s: %d carried out, %d skipped; serving stood still for %.1f ms, planning took %.1f ms of "
      "CPU\n",
      rebalances["mode"].get<std::string>(), rebalances["carried_out"].get<int64_t>(),
      rebalances["skipped"].get<int64_t>(), rebalances["stall_us"].get<double>() / 1000,
      rebalances["planning_us"].get<double>() / 1000);
  absl::StrAppendFormat(&text, "  weights moved     %d slots", rebalances["slots_moved"].get<int64_t>());
  for (const auto& [way, bytes] : rebalances["bytes"].items()) {
    if (bytes.get<int64_t>() > 0) absl::StrAppend(&text, ", ", HumanBytes(bytes.get<double>()), " over ", way);
  }
  text += "\n";
  const auto rate = [](const Json& tokens) {
    return tokens.is_null() ? std::string("-") : absl::StrFormat("%.0f", tokens.get<double>());
  };
  for (const Json& event : rebalances["events"]) {
    if (!event.contains("out_of_service_us")) continue;
    absl::StrAppendFormat(
        &text, "  members           %s at %.1f ms: out of service for %.1f ms; %s tokens/s before, %s after\n",
        event["reason"].get<std::string>(), event["time_us"].get<double>() / 1000,
        event["out_of_service_us"].get<double>() / 1000, rate(event["tokens_per_s_before"]),
        rate(event["tokens_per_s_after"]));
  }
  return text;
}

}  // namespace epsim
