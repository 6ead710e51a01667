// Costs that can be worked out by hand: a picosecond a token, all ports alike, 7 ps of latency.
#pragma once

#include "policies/placement/placement_policy.h"

namespace epsim {

class SimpleCosts final : public CostView {
 public:
  SimpleCosts(int ranks, const PortTime& port, ExchangeCost::Copies copies) {
    exchange_.copies = copies;
    exchange_.sending.assign(ranks, port);
    exchange_.receiving.assign(ranks, port);
    exchange_.node_latency = exchange_.network_latency = Duration(7);
  }
  Duration ExpertTime(Layer, absl::Span<const LogicalExpert>,
                      absl::Span<const int32_t> tokens_per_slot) const override {
    Duration time{};
    for (int32_t tokens : tokens_per_slot) time += Duration(tokens);
    return time;
  }
  const ExchangeCost* exchange() const override { return &exchange_; }

 private:
  ExchangeCost exchange_;
};

}  // namespace epsim
