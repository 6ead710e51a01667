#include "policies/placement/placement_policy.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/checked_placement.h"
#include "policies/placement/compute_aware_placement.h"
#include "policies/placement/contiguous_placement.h"
#include "policies/placement/elasticity_aware_placement.h"
#include "policies/placement/eplb_placement.h"
#include "policies/placement/eplb_vec_placement.h"
#include "policies/placement/flashlb_placement.h"
#include "policies/placement/oracle_placement.h"
#include "policies/placement/random_placement.h"
#include "policies/placement/round_robin_placement.h"
#include "policies/placement/survivors_placement.h"
#include "policies/placement/swift_placement.h"
#include "policies/placement/topology_aware_placement.h"
#include "policies/placement/trtllm_placement.h"
#include "policies/placement/vllm_placement.h"
#include "policies/plugin/plugin_placement.h"

namespace epsim {
namespace {

constexpr int kMaxSlots = 65536;  // ReplicaTable holds slots in 16 bits.

absl::Status CheckPositive(const char* what, int value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, ": ", value, " is not positive; 1 or more would fit"));
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewUncheckedPolicy(const PlacementPolicyConfig& config,
                                                                    const PlacementShape& shape) {
  switch (config.policy_case()) {
    case PlacementPolicyConfig::kContiguous:
      return NewContiguousPlacement(shape);
    case PlacementPolicyConfig::kEplb:
      return NewEplbPlacement(config.eplb(), shape);
    case PlacementPolicyConfig::kRoundRobin:
      return NewRoundRobinPlacement(shape);
    case PlacementPolicyConfig::kRandom:
      return NewRandomPlacement(shape);
    case PlacementPolicyConfig::kEplbVec:
      return NewEplbVecPlacement(config.eplb_vec(), shape);
    case PlacementPolicyConfig::kVllm:
      return NewVllmPlacement(config.vllm(), shape);
    case PlacementPolicyConfig::kTrtllm:
      return NewTrtllmPlacement(shape);
    case PlacementPolicyConfig::kSwift:
      return NewSwiftPlacement(config.swift(), shape);
    case PlacementPolicyConfig::kFlashlb:
      return NewFlashlbPlacement(config.flashlb(), shape);
    case PlacementPolicyConfig::kComputeAware:
      return NewComputeAwarePlacement(config.compute_aware(), shape);
    case PlacementPolicyConfig::kComputeAwareHierarchical:
      return NewComputeAwareHierarchicalPlacement(config.compute_aware_hierarchical(), shape);
    case PlacementPolicyConfig::kTopologyAware:
      return NewTopologyAwarePlacement(shape);
    case PlacementPolicyConfig::kOracle:
      return NewOraclePlacement(shape);
    case PlacementPolicyConfig::kElasticityAware:
      return NewElasticityAwarePlacement(shape);
    case PlacementPolicyConfig::kPlugin:
      return NewPluginPlacement(config.plugin(), shape);
    case PlacementPolicyConfig::POLICY_NOT_SET:
      return absl::InvalidArgumentError("placement: no policy is chosen");
  }
  return absl::InvalidArgumentError(absl::StrCat("placement: unknown policy ", static_cast<int>(config.policy_case())));
}

}  // namespace

absl::Status CheckPlacementShape(const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckPositive("layers", shape.layers));
  RETURN_IF_ERROR(CheckPositive("experts", shape.experts));
  RETURN_IF_ERROR(CheckPositive("slots", shape.slots));
  RETURN_IF_ERROR(CheckPositive("ranks", shape.ranks));
  RETURN_IF_ERROR(CheckPositive("nodes", shape.nodes));
  RETURN_IF_ERROR(CheckPositive("expert_groups", shape.expert_groups));
  for (const auto& [what, value] :
       {std::pair("slots", shape.slots), {"ranks", shape.ranks}, {"experts", shape.experts}}) {
    if (value > kMaxSlots) {
      return absl::InvalidArgumentError(
          absl::StrCat(what, ": ", value, " is more than ", kMaxSlots, ", the most that fit"));
    }
  }
  // The whole multiples of the ranks that hold every expert.
  const int64_t ranks = shape.ranks, least = (shape.experts + ranks - 1) / ranks * ranks;
  if (shape.slots < shape.experts) {
    return absl::InvalidArgumentError(absl::StrCat("slots: ", shape.slots, " are fewer than ", shape.experts,
                                                   " experts; ", least, " or more would fit on ", ranks, " ranks"));
  }
  if (shape.slots % ranks != 0) {
    const int64_t below = shape.slots / ranks * ranks;
    return absl::InvalidArgumentError(absl::StrCat("slots: ", shape.slots, " are not divisible by ", ranks, " ranks; ",
                                                   below >= least ? absl::StrCat(below, " or ") : std::string(),
                                                   below + ranks, " would fit"));
  }
  return absl::OkStatus();
}

std::vector<double> LoadWindow::Total() const {
  EPSIM_CHECK(rows >= 0 && layers >= 0 && experts >= 0);
  const size_t row_size = static_cast<size_t>(layers) * experts;
  EPSIM_CHECK(tokens.size() == rows * row_size);
  std::vector<double> total(row_size);
  for (int row = 0; row < rows; ++row) {
    for (size_t i = 0; i < row_size; ++i) total[i] += tokens[row * row_size + i];
  }
  return total;
}

std::string PlacementName(const PlacementPolicyConfig& config) {
  const auto* const field = config.GetReflection()->GetOneofFieldDescriptor(
      config, PlacementPolicyConfig::descriptor()->FindOneofByName("policy"));
  return field == nullptr ? "none" : field->name();
}

bool GoesByLoad(const PlacementPolicyConfig& config) {
  switch (config.policy_case()) {
    case PlacementPolicyConfig::kContiguous:
    case PlacementPolicyConfig::kRoundRobin:
    case PlacementPolicyConfig::kRandom:
    case PlacementPolicyConfig::POLICY_NOT_SET:
      return false;
    case PlacementPolicyConfig::kEplb:
    case PlacementPolicyConfig::kEplbVec:
    case PlacementPolicyConfig::kVllm:
    case PlacementPolicyConfig::kTrtllm:
    case PlacementPolicyConfig::kSwift:
    case PlacementPolicyConfig::kFlashlb:
    case PlacementPolicyConfig::kComputeAware:
    case PlacementPolicyConfig::kComputeAwareHierarchical:
    case PlacementPolicyConfig::kTopologyAware:
    case PlacementPolicyConfig::kOracle:
    case PlacementPolicyConfig::kElasticityAware:
    case PlacementPolicyConfig::kPlugin:
      return true;
  }
  EPSIM_CHECK(false);
}

bool GoesByProfile(const PlacementPolicyConfig& config) {
  return config.has_compute_aware() || config.has_compute_aware_hierarchical() || config.has_plugin();
}

bool GoesByCoActivation(const PlacementPolicyConfig& config) { return config.has_topology_aware(); }

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewPlacementPolicy(const PlacementPolicyConfig& config,
                                                                    const PlacementShape& shape) {
  RETURN_IF_ERROR(CheckPlacementShape(shape));
  ASSIGN_OR_RETURN(std::unique_ptr<PlacementPolicy> policy, NewUncheckedPolicy(config, shape));
  policy = NewSurvivorsPlacement(std::move(policy), config, shape, NewUncheckedPolicy);
  return NewCheckedPlacement(std::move(policy), GoesByLoad(config), shape);
}

}  // namespace epsim
