#include "policies/placement/contiguous_placement.h"

#include <utility>
#include <vector>

namespace epsim {
namespace {

class ContiguousPlacementPolicy : public PlacementPolicy {
 public:
  explicit ContiguousPlacementPolicy(const PlacementShape& shape) : shape_(shape) {}

  Placement Place(const PlacementRequest&) override {
    std::vector<LogicalExpert> expert_of_slot;
    expert_of_slot.reserve(static_cast<size_t>(shape_.layers) * shape_.slots);
    for (int layer = 0; layer < shape_.layers; ++layer) {
      for (int slot = 0; slot < shape_.slots; ++slot) expert_of_slot.push_back(LogicalExpert(slot % shape_.experts));
    }
    return Placement(shape_, std::move(expert_of_slot));
  }

 private:
  const PlacementShape shape_;
};

}  // namespace

std::unique_ptr<PlacementPolicy> NewContiguousPlacement(const PlacementShape& shape) {
  return std::make_unique<ContiguousPlacementPolicy>(shape);
}

}  // namespace epsim
