// The routing of a run whose placement changes while it serves: the placement in force, the replicas chosen under it,
// and the counting of tokens by both.
#pragma once

#include <cstdint>
#include <memory>

#include "engine/random_stream.h"
#include "models/routing/token_routing.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica_choice.h"

namespace epsim {

class PlacedRouting : public TokenRouting {
 public:
  // `choice` must outlive the routing.  What it draws, it draws from the stream "replica_choice" of `seed`.
  PlacedRouting(Placement placement, ReplicaChoice* choice, uint64_t seed, const RoutingDetail& detail);

  // In force.
  const Placement& placement() const { return placement_; }
  const ReplicaTable& table() const { return table_; }  // Empty where replicas are chosen call by call.
  // From now on `layer` is as in `next`.  Not while layers are counted.
  void SwitchLayer(Layer layer, const Placement& next);

  void Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const override;

 private:
  Placement placement_;
  ReplicaChoice* const choice_;
  RandomStream random_;
  // Of a fixed choice.
  ReplicaTable table_;
  std::unique_ptr<TableRouting> by_table_;
  // Of one that is made call by call.
  std::unique_ptr<TokenRouting> dealt_;
};

}  // namespace epsim
