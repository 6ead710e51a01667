#include "policies/routing/routing_policy.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"
#include "policies/plugin/plugin_routing.h"
#include "policies/routing/adaptive_routing.h"
#include "policies/routing/expert_choice.h"
#include "policies/routing/token_choice.h"

namespace epsim {
namespace {

absl::Status CompleteKernel(RoutingKernel* kernel) {
  const char* floor = "200 us";
  const char* per_entry = "190 ps";
  switch (kernel->kind()) {
    case RoutingKernel::PLAIN:
      break;
    case RoutingKernel::FUSED:
      floor = "5 us", per_entry = "4 ps";
      break;
    case RoutingKernel_Kind_RoutingKernel_Kind_INT_MIN_SENTINEL_DO_NOT_USE_:
    case RoutingKernel_Kind_RoutingKernel_Kind_INT_MAX_SENTINEL_DO_NOT_USE_:
      return absl::InvalidArgumentError("routing.kernel.kind: unknown; PLAIN or FUSED would fit");
  }
  if (kernel->floor().empty()) kernel->set_floor(floor);
  if (kernel->per_entry().empty()) kernel->set_per_entry(per_entry);
  for (const auto& [field, text] : {std::pair("floor", &kernel->floor()), {"per_entry", &kernel->per_entry()}}) {
    const absl::StatusOr<Duration> time = ParseDuration(*text);
    if (!time.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("routing.kernel.", field, ": ", time.status().message()));
    }
    if (*time >= kLongestStep) {
      return absl::InvalidArgumentError(
          absl::StrCat("routing.kernel.", field, ": ", *text, " is as long as the longest step, 600 s, or longer"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

bool ChangesRouting(const RoutingPolicyConfig& config) {
  switch (config.policy_case()) {
    case RoutingPolicyConfig::kTokenChoice:
    case RoutingPolicyConfig::POLICY_NOT_SET:
      return false;
    case RoutingPolicyConfig::kExpertChoice:
    case RoutingPolicyConfig::kAdaptive:
    case RoutingPolicyConfig::kPlugin:
      return true;
  }
  EPSIM_CHECK(false);
}

bool GoesByRouterLoad(const RoutingPolicyConfig& config) {
  switch (config.policy_case()) {
    case RoutingPolicyConfig::kTokenChoice:
    case RoutingPolicyConfig::kExpertChoice:
    case RoutingPolicyConfig::POLICY_NOT_SET:
      return false;
    case RoutingPolicyConfig::kAdaptive:
    case RoutingPolicyConfig::kPlugin:
      return true;
  }
  EPSIM_CHECK(false);
}

std::string RoutingPolicyName(const RoutingPolicyConfig& config) {
  const auto* policies = RoutingPolicyConfig::descriptor()->FindOneofByName("policy");
  const auto* field = config.GetReflection()->GetOneofFieldDescriptor(config, policies);
  return field == nullptr ? "token_choice" : field->name();
}

absl::StatusOr<RoutingPolicyConfig> CompleteRoutingConfig(const RoutingPolicyConfig& config) {
  RoutingPolicyConfig complete = config;
  switch (config.policy_case()) {
    case RoutingPolicyConfig::POLICY_NOT_SET:
      complete.mutable_token_choice();
      break;
    case RoutingPolicyConfig::kTokenChoice:
    case RoutingPolicyConfig::kPlugin:
      break;
    case RoutingPolicyConfig::kExpertChoice:
      RETURN_IF_ERROR(CompleteExpertChoice("routing.expert_choice", complete.mutable_expert_choice()));
      break;
    case RoutingPolicyConfig::kAdaptive:
      RETURN_IF_ERROR(CompleteAdaptiveRouting(complete.mutable_adaptive()));
      break;
  }
  if (!ChangesRouting(complete)) return complete;
  if (!RoutingPolicyConfig::Reconstruction_IsValid(complete.reconstruct())) {
    return absl::InvalidArgumentError("routing.reconstruct: unknown; RANK_PRIOR would fit");
  }
  RETURN_IF_ERROR(CompleteKernel(complete.mutable_kernel()));
  return complete;
}

absl::StatusOr<std::unique_ptr<RoutingPolicy>> NewRoutingPolicy(const RoutingPolicyConfig& config,
                                                                const RoutingShape& shape) {
  EPSIM_CHECK(shape.layers > 0 && shape.experts > 0 && shape.experts <= 65536 && shape.ranks > 0);
  EPSIM_CHECK(shape.top_k > 0 && shape.top_k <= 255 && shape.top_k <= shape.experts);
  ASSIGN_OR_RETURN(const RoutingPolicyConfig complete, CompleteRoutingConfig(config));
  switch (complete.policy_case()) {
    case RoutingPolicyConfig::kTokenChoice:
      return NewTokenChoice();
    case RoutingPolicyConfig::kExpertChoice:
      return NewExpertChoice(complete.expert_choice(), shape);
    case RoutingPolicyConfig::kAdaptive:
      return NewAdaptiveRouting(complete.adaptive(), shape);
    case RoutingPolicyConfig::kPlugin:
      return NewPluginRouting(complete.plugin(), shape);
    case RoutingPolicyConfig::POLICY_NOT_SET:
      break;
  }
  EPSIM_CHECK(!"a complete config");
  __builtin_unreachable();
}

}  // namespace epsim
