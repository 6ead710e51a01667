#include "policies/placement/elasticity_aware_placement.h"

#include "policies/placement/eplb_placement.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewElasticityAwarePlacement(const PlacementShape& shape) {
  EplbPlacement global;
  global.set_mode(EplbPlacement::GLOBAL);
  return NewEplbPlacement(global, shape);
}

}  // namespace epsim
