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
  event["in_force_after_us"] = record.settled.has_value() ? Json(Microseconds(*record.settled - record.time)) : Json();
  return event;
}

}  // namespace

std::string RebalanceModeName(const RebalanceConfig& config) {
  const auto* const field =
      config.GetReflection()->GetOneofFieldDescriptor(config, RebalanceConfig::descriptor()->FindOneofByName("mode"));
  return field == nullptr ? "none" : field->name();
}

Json RebalancesJson(const RebalanceConfig& config, const std::deque<RebalanceRecord>& records) {
  if (config.has_none()) return nullptr;
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
  return text + "\n";
}

}  // namespace epsim
