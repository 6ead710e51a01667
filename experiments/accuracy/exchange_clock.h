// How long one exchange takes on a cluster on which nothing else happens.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/event_queue.h"
#include "models/communication/communication.h"
#include "platforms/cluster.h"
#include "platforms/network/network.h"

namespace epsim {

class ExchangeClock {
 public:
  // `cluster` must outlive the clock.
  static absl::StatusOr<std::unique_ptr<ExchangeClock>> Create(const NetworkConfig& config, const Cluster& cluster);

  // From the release of all ranks at once to the finish of the last, without the exchange's prepare step.
  Duration Time(const Exchange& exchange);

 private:
  ExchangeClock() = default;

  int ranks_ = 0;
  EventQueue queue_;
  std::unique_ptr<Network> network_;
};

}  // namespace epsim
