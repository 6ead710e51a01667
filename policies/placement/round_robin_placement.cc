#include "policies/placement/round_robin_placement.h"

#include <utility>

#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

class RoundRobinPlacementPolicy : public PlacementPolicy {
 public:
  explicit RoundRobinPlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    PlacementDraft draft(shape_, request);
    for (Layer layer : draft.layers()) {
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      for (int slot = 0; slot < shape_.slots; ++slot) {
        const int rank = slot / shape_.slots_per_rank(), i = slot % shape_.slots_per_rank();
        experts[slot] = LogicalExpert((rank + i * shape_.ranks) % shape_.experts);
      }
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

std::unique_ptr<PlacementPolicy> NewRoundRobinPlacement(const PlacementShape& shape) {
  return std::make_unique<RoundRobinPlacementPolicy>(shape);
}

}  // namespace epsim
