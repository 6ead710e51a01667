#include "platforms/network/network.h"

#include "platforms/network/port.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<Network>> NewNetwork(const NetworkConfig& config, const Cluster& cluster,
                                                    EventQueue* queue) {
  switch (config.network_case()) {
    case NetworkConfig::kPort:
      return NewPortNetwork(config.port(), cluster, queue);
    case NetworkConfig::kMaxMin:
    case NetworkConfig::kSimgrid:
      return absl::UnimplementedError("network: not there yet");
    case NetworkConfig::NETWORK_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("network: no model is chosen");
}

}  // namespace epsim
