#include "policies/placement/contiguous_placement.h"

#include <utility>

#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

class ContiguousPlacementPolicy : public PlacementPolicy {
 public:
  explicit ContiguousPlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    PlacementDraft draft(shape_, request);
    for (Layer layer : draft.layers()) {
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      for (int slot = 0; slot < shape_.slots; ++slot) experts[slot] = LogicalExpert(slot % shape_.experts);
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

Placement PlaceContiguously(const PlacementShape& shape) { return *ContiguousPlacementPolicy(shape).Place({}); }

std::unique_ptr<PlacementPolicy> NewContiguousPlacement(const PlacementShape& shape) {
  return std::make_unique<ContiguousPlacementPolicy>(shape);
}

}  // namespace epsim
