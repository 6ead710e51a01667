#include "models/communication/communication.h"

#include "models/communication/all_to_all.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<Communication>> NewCommunication(const CommunicationConfig& config, int ranks,
                                                                TokenBytes token_bytes) {
  switch (config.communication_case()) {
    case CommunicationConfig::kAllToAll:
      return NewAllToAll(config.all_to_all(), ranks, token_bytes);
    case CommunicationConfig::COMMUNICATION_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("communication: none chosen");
}

}  // namespace epsim
