#include "policies/placement/placement_change.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"
#include "policies/placement/contiguous_placement.h"
#include "policies/placement/placement_draft.h"

namespace epsim {

PlacementChange::PlacementChange(const PlacementShape& shape, const PlacementRequest& request)
    : start_(request.previous != nullptr ? *request.previous : NewContiguousPlacement(shape)->Place({}).value()),
      layers_(request.layers.begin(), request.layers.end()) {
  EPSIM_CHECK(start_.shape() == shape);
  if (!layers_.empty()) return;
  for (int layer = 0; layer < shape.layers; ++layer) layers_.push_back(Layer(layer));
}

bool PlacementChange::HasEmptySlots(Layer layer) const {
  const absl::Span<const LogicalExpert> experts = start_.experts_of_slots(layer);
  return std::find(experts.begin(), experts.end(), kNoExpert) != experts.end();
}

void PlacementChange::Change(Layer layer, std::vector<LogicalExpert> experts_of_slots, double priority) {
  changed_.push_back({layer, std::move(experts_of_slots), priority});
}

PlacementChange::Result PlacementChange::Finish() && {
  if (changed_.empty()) return {std::move(start_), {}};
  const auto by_layer = [](const ChangedLayer& a, const ChangedLayer& b) { return a.layer < b.layer; };
  std::sort(changed_.begin(), changed_.end(), by_layer);
  std::vector<Layer> open;
  for (const ChangedLayer& changed : changed_) open.push_back(changed.layer);
  PlacementRequest request;
  request.previous = &start_;
  request.layers = open;
  PlacementDraft draft(start_.shape(), request);
  for (const ChangedLayer& changed : changed_) {
    std::copy(changed.experts_of_slots.begin(), changed.experts_of_slots.end(),
              draft.experts_of_slots(changed.layer).begin());
    draft.OrderBySlot(changed.layer);
  }
  Result result{std::move(draft).Finish(), {}};
  std::stable_sort(changed_.begin(), changed_.end(),
                   [](const ChangedLayer& a, const ChangedLayer& b) { return a.priority < b.priority; });
  for (const ChangedLayer& changed : changed_) result.order.push_back(changed.layer);
  return result;
}

}  // namespace epsim
