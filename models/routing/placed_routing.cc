#include "models/routing/placed_routing.h"

#include <utility>

#include "models/routing/dealt_routing.h"

namespace epsim {

PlacedRouting::PlacedRouting(Placement placement, ReplicaChoice* choice, uint64_t seed, const RoutingDetail& detail)
    : placement_(std::move(placement)), choice_(choice), random_(seed, "replica_choice") {
  if (FixedReplicaChoice* const fixed = choice->fixed(); fixed != nullptr) {
    table_ = fixed->Choose(placement_, &random_);
    by_table_ = NewTokenRouting(placement_.shape(), table_, detail);
  } else {
    dealt_ = NewDealtRouting(placement_, *choice->per_call(), random_.Next(), detail);
  }
}

void PlacedRouting::SwitchLayer(Layer layer, const Placement& next) {
  placement_.TakeLayer(layer, next);
  if (by_table_ == nullptr) return;
  choice_->fixed()->ChooseLayer(placement_, layer, &random_, &table_);
  by_table_->Refresh(layer);
}

void PlacedRouting::Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const {
  if (by_table_ != nullptr) {
    by_table_->Count(batch, range, layer, routed);
  } else {
    dealt_->Count(batch, range, layer, routed);
  }
}

}  // namespace epsim
