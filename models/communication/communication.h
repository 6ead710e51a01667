// A communication strategy carries tokens to the ranks of their experts (dispatch) and the experts' results back
// (combine).  It turns the routing of a layer into bytes between ranks; the network model turns bytes into time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/units.h"
#include "models/communication/communication.pb.h"
#include "models/routing/token_routing.h"
#include "platforms/network/network.h"

namespace epsim {

// Bytes of one token on the wire, scales included.
struct TokenBytes {
  Bytes dispatch, combine;
};

class Communication {
 public:
  virtual ~Communication() = default;
  // Bytes between ranks for the layer; the matrix is resized as needed, its diagonal is zero.
  virtual void Dispatch(const RoutedLayer& routed, TrafficMatrix* traffic) const = 0;
  virtual void Combine(const RoutedLayer& routed, TrafficMatrix* traffic) const = 0;
};

absl::StatusOr<std::unique_ptr<Communication>> NewCommunication(const CommunicationConfig& config, int ranks,
                                                                TokenBytes token_bytes);

}  // namespace epsim
