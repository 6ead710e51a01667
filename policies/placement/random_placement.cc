#include "policies/placement/random_placement.h"

#include <utility>

#include "policies/placement/placement_draft.h"

namespace epsim {
namespace {

class RandomPlacementPolicy : public PlacementPolicy {
 public:
  explicit RandomPlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    RandomStream& random = *request.random;
    PlacementDraft draft(shape_, request);
    for (Layer layer : draft.layers()) {
      const absl::Span<LogicalExpert> experts = draft.experts_of_slots(layer);
      for (int slot = 0; slot < shape_.slots; ++slot) {
        const bool redundant = slot >= shape_.experts;
        experts[slot] = LogicalExpert(redundant ? static_cast<int32_t>(random.Below(shape_.experts)) : slot);
      }
      for (int slot = shape_.slots - 1; slot > 0; --slot) std::swap(experts[slot], experts[random.Below(slot + 1)]);
      draft.OrderBySlot(layer);
    }
    return std::move(draft).Finish();
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

std::unique_ptr<PlacementPolicy> NewRandomPlacement(const PlacementShape& shape) {
  return std::make_unique<RandomPlacementPolicy>(shape);
}

}  // namespace epsim
