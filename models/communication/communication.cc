#include "models/communication/communication.h"

#include "models/communication/all_to_all.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<Communication>> NewCommunication(const CommunicationConfig& config,
                                                                const CommunicationSetup& setup) {
  switch (config.communication_case()) {
    case CommunicationConfig::kAllToAll:
      return NewAllToAll(config.all_to_all(), setup);
    case CommunicationConfig::kDeepepNormal:
    case CommunicationConfig::kDeepepLowLatency:
    case CommunicationConfig::kNvlinkOneSided:
    case CommunicationConfig::kNvlinkTwoSided:
    case CommunicationConfig::kAllgatherReducescatter:
    case CommunicationConfig::kAllReduce:
    case CommunicationConfig::kNcclAllToAll:
    case CommunicationConfig::kAutomatic:
      return absl::UnimplementedError("communication: not there yet");
    case CommunicationConfig::COMMUNICATION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("communication: none chosen");
}

}  // namespace epsim
