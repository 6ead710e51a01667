// The `max_min` network model: every pair of ranks is a flow over all links of its route at once (flow.h), and the
// rates are max-min fair (max_min_rates.h), found again whenever a flow starts or ends.  Exact where `port` is a bound:
// on sparse traffic a sender that is held up at one receiver leaves room for others, and one flow of a slow sender does
// not hold up a receiver's link.  It costs time in proportion to flows times flows (a phase of 64 ranks: tens of
// milliseconds).
//
// Every flow has the same weight, so phases of different streams share a link in proportion to the flows that they have
// on it.  Phases of a stream follow each other on each link (flow_order.h).
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "platforms/network/network.h"

namespace epsim {

// `cluster` and `queue` must outlive the network.  Fails on clusters of more ranks than it can take.
absl::StatusOr<std::unique_ptr<Network>> NewMaxMinNetwork(const MaxMinNetworkConfig& config, const Cluster& cluster,
                                                          EventQueue* queue);

}  // namespace epsim
