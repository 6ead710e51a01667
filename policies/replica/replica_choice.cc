#include "policies/replica/replica_choice.h"

#include <chrono>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"
#include "policies/plugin/plugin_replica_choice.h"
#include "policies/replica/dynamic_replica_choice.h"
#include "policies/replica/least_loaded_replica_choice.h"
#include "policies/replica/lp_replica_choice.h"
#include "policies/replica/round_robin_replica_choice.h"
#include "policies/replica/static_replica_choice.h"

namespace epsim {
namespace {

constexpr Duration kMostPlanningTime = std::chrono::seconds(1);

absl::StatusOr<Duration> PlanningTime(const char* choice, const std::string& text) {
  const absl::StatusOr<Duration> time = ParseDuration(text);
  if (time.ok() && *time <= kMostPlanningTime) return time;
  return absl::InvalidArgumentError(
      absl::StrCat("replica_choice.", choice, ".planning_time: ",
                   time.ok() ? absl::StrCat("\"", text, "\" is more than a second; \"100 us\" would fit")
                             : time.status().message()));
}

}  // namespace

ReplicaTable FixedReplicaChoice::Choose(const Placement& placement, RandomStream* random) {
  const PlacementShape& shape = placement.shape();
  ReplicaTable table{shape.layers, shape.ranks, shape.experts, {}};
  table.slot.resize(static_cast<size_t>(shape.layers) * shape.ranks * shape.experts);
  for (int layer = 0; layer < shape.layers; ++layer) ChooseLayer(placement, Layer(layer), random, &table);
  return table;
}

ReplicaChoiceConfig CompleteReplicaChoiceConfig(const ReplicaChoiceConfig& config) {
  ReplicaChoiceConfig complete = config;
  const auto fill = [](const char* time, std::string* text) {
    if (text->empty()) *text = time;
  };
  switch (config.choice_case()) {
    case ReplicaChoiceConfig::kStaticNearest:
    case ReplicaChoiceConfig::kDynamic:
    case ReplicaChoiceConfig::kPlugin:
      break;
    case ReplicaChoiceConfig::kRoundRobin:
      if (!config.round_robin().has_offset_by_ep_rank()) complete.mutable_round_robin()->set_offset_by_ep_rank(true);
      break;
    case ReplicaChoiceConfig::kLeastLoaded:
      fill("5 us", complete.mutable_least_loaded()->mutable_planning_time());
      break;
    case ReplicaChoiceConfig::kLp:
      fill("100 us", complete.mutable_lp()->mutable_planning_time());
      break;
    case ReplicaChoiceConfig::CHOICE_NOT_SET:
      complete.mutable_static_nearest();
      break;
  }
  return complete;
}

absl::StatusOr<std::unique_ptr<ReplicaChoice>> NewReplicaChoice(const ReplicaChoiceConfig& config) {
  if (config.choice_case() == ReplicaChoiceConfig::CHOICE_NOT_SET) {
    return absl::InvalidArgumentError("replica: no choice is made");
  }
  const ReplicaChoiceConfig complete = CompleteReplicaChoiceConfig(config);
  switch (complete.choice_case()) {
    case ReplicaChoiceConfig::kStaticNearest:
      return NewStaticReplicaChoice();
    case ReplicaChoiceConfig::kDynamic:
      return NewDynamicReplicaChoice();
    case ReplicaChoiceConfig::kRoundRobin:
      return NewRoundRobinReplicaChoice(complete.round_robin().offset_by_ep_rank());
    case ReplicaChoiceConfig::kLeastLoaded: {
      ASSIGN_OR_RETURN(const Duration time, PlanningTime("least_loaded", complete.least_loaded().planning_time()));
      return NewLeastLoadedReplicaChoice(time);
    }
    case ReplicaChoiceConfig::kLp: {
      ASSIGN_OR_RETURN(const Duration time, PlanningTime("lp", complete.lp().planning_time()));
      return NewLpReplicaChoice(time);
    }
    case ReplicaChoiceConfig::kPlugin:
      return NewPluginReplicaChoice(complete.plugin());
    case ReplicaChoiceConfig::CHOICE_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError(absl::StrCat("replica: unknown choice ", static_cast<int>(config.choice_case())));
}

}  // namespace epsim
