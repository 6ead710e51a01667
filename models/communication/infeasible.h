// Why a strategy cannot work: one line that names it, what it was asked for and what would do.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "models/communication/communication.h"
#include "platforms/cluster.h"

namespace epsim {

template <typename... Parts>
absl::Status Infeasible(std::string_view strategy, const Parts&... reason) {
  return absl::FailedPreconditionError(
      absl::StrCat("communication.", absl::string_view(strategy.data(), strategy.size()), ": ", reason...));
}

// For kernels that reach the memory of all their peers over NVLink.
inline absl::Status CheckOneNvlinkDomain(std::string_view strategy, const Cluster& cluster) {
  if (!cluster.has_nvlink()) {
    return Infeasible(strategy, "the platform has no NVLink; nccl_all_to_all or allgather_reducescatter would do");
  }
  if (cluster.nodes() > 1) {
    return Infeasible(strategy, cluster.ranks(), " ranks lie in ", cluster.nodes(), " NVLink domains; at most ",
                      cluster.platform().gpus_per_node(),
                      ", one domain, would do, or deepep_normal, deepep_low_latency or allgather_reducescatter");
  }
  return absl::OkStatus();
}

// For libraries that give each rank the same number of experts.
inline absl::Status CheckRanksDivideExperts(std::string_view strategy, const CommunicationSetup& setup) {
  const int experts = static_cast<int>(setup.model.experts()), ranks = setup.cluster->ranks();
  if (experts % ranks == 0) return absl::OkStatus();
  return Infeasible(strategy, ranks, " ranks do not divide ", experts, " experts; a divisor of ", experts,
                    " would do, or nvlink_one_sided or allgather_reducescatter");
}

}  // namespace epsim
