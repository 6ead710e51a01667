#include "models/routing/placed_routing.h"

#include <utility>

namespace epsim {

PlacedRouting::PlacedRouting(Placement placement, ReplicaChoice* choice, uint64_t seed, const RoutingDetail& detail)
    : placement_(std::move(placement)),
      choice_(choice),
      random_(seed, "replica_choice"),
      table_(choice->Choose(placement_, &random_)),
      routing_(NewTokenRouting(placement_.shape(), table_, detail)) {}

void PlacedRouting::SwitchLayer(Layer layer, const Placement& next) {
  placement_.TakeLayer(layer, next);
  choice_->ChooseLayer(placement_, layer, &random_, &table_);
  routing_->Refresh(layer);
}

void PlacedRouting::Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const {
  routing_->Count(batch, range, layer, routed);
}

}  // namespace epsim
