#include "policies/placement/placement_draft.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace epsim {

PlacementDraft::PlacementDraft(const PlacementShape& shape, const PlacementRequest& request) : shape_(shape) {
  layers_.assign(request.layers.begin(), request.layers.end());
  if (layers_.empty()) {
    for (int layer = 0; layer < shape.layers; ++layer) layers_.push_back(Layer(layer));
  }
  EPSIM_CHECK(std::is_sorted(layers_.begin(), layers_.end()) &&
              Index(layers_.back()) < static_cast<size_t>(shape.layers));
  const size_t size = static_cast<size_t>(shape.layers) * shape.slots;
  experts_of_slots_.assign(size, kNoExpert);
  replica_order_.assign(size, 0);
  if (layers_.size() == static_cast<size_t>(shape.layers)) return;
  EPSIM_CHECK(request.previous != nullptr && request.previous->shape() == shape);
  for (int layer = 0; layer < shape.layers; ++layer) {
    if (std::binary_search(layers_.begin(), layers_.end(), Layer(layer))) continue;
    const absl::Span<const LogicalExpert> kept = request.previous->experts_of_slots(Layer(layer));
    std::copy(kept.begin(), kept.end(), experts_of_slots(Layer(layer)).begin());
    const absl::Span<int32_t> order = replica_order(Layer(layer));
    for (int expert = 0; expert < shape.experts; ++expert) {
      int32_t next = 0;
      for (Slot slot : request.previous->replicas(Layer(layer), LogicalExpert(expert))) order[Index(slot)] = next++;
    }
  }
}

absl::Span<LogicalExpert> PlacementDraft::experts_of_slots(Layer layer) {
  return absl::MakeSpan(experts_of_slots_).subspan(Index(layer) * shape_.slots, shape_.slots);
}

absl::Span<int32_t> PlacementDraft::replica_order(Layer layer) {
  return absl::MakeSpan(replica_order_).subspan(Index(layer) * shape_.slots, shape_.slots);
}

void PlacementDraft::OrderBySlot(Layer layer) {
  std::vector<int32_t> next(shape_.experts);
  const absl::Span<const LogicalExpert> experts = experts_of_slots(layer);
  const absl::Span<int32_t> order = replica_order(layer);
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    if (experts[slot] != kNoExpert) order[slot] = next[Index(experts[slot])]++;
  }
}

Placement PlacementDraft::Finish() && { return Placement(shape_, std::move(experts_of_slots_), replica_order_); }

}  // namespace epsim
