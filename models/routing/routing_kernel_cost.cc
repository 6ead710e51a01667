#include "models/routing/routing_kernel_cost.h"

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"

namespace epsim {

absl::StatusOr<RoutingKernelCost> RoutingKernelCost::Create(const RoutingKernel& complete, int experts) {
  RoutingKernelCost cost;
  cost.plain_ = complete.kind() == RoutingKernel::PLAIN;
  cost.experts_ = experts;
  ASSIGN_OR_RETURN(cost.floor_, ParseDuration(complete.floor()));
  ASSIGN_OR_RETURN(cost.per_entry_, ParseDuration(complete.per_entry()));
  cost.description_ = absl::StrCat(cost.plain_ ? "plain, " : "fused, ", complete.floor(), " + ", complete.per_entry(),
                                   " a token and expert");
  return cost;
}

Duration RoutingKernelCost::Time(int64_t tokens) const {
  return RoundUpWithinStep(static_cast<double>(floor_.count()) +
                           static_cast<double>(tokens) * experts_ * static_cast<double>(per_entry_.count()));
}

Bytes RoutingKernelCost::Memory(int64_t tokens) const {
  return Bytes(plain_ ? tokens * experts_ * static_cast<int64_t>(sizeof(float)) : 0);
}

}  // namespace epsim
