#include "platforms/network/network.h"

#include "platforms/network/max_min.h"
#include "platforms/network/port.h"
#include "platforms/network/simgrid.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<Network>> NewNetwork(const NetworkConfig& config, const Cluster& cluster,
                                                    EventQueue* queue) {
  switch (config.network_case()) {
    case NetworkConfig::kPort:
      return NewPortNetwork(config.port(), cluster, queue);
    case NetworkConfig::kMaxMin:
      return NewMaxMinNetwork(config.max_min(), cluster, queue);
    case NetworkConfig::kSimgrid:
      return NewSimGridNetwork(config.simgrid(), cluster, queue);
    case NetworkConfig::NETWORK_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("network: no model is chosen");
}

}  // namespace epsim
