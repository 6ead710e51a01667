#include "policies/placement/placement.h"

#include <algorithm>
#include <utility>

#include "engine/check.h"

namespace epsim {

Placement::Placement(const PlacementShape& shape, std::vector<LogicalExpert> experts_of_slots,
                     absl::Span<const int32_t> replica_order)
    : shape_(shape), experts_of_slots_(std::move(experts_of_slots)) {
  EPSIM_CHECK(shape.layers >= 0 && shape.experts > 0 && shape.slots > 0 && shape.ranks > 0);
  const size_t layers = shape.layers, experts = shape.experts, slots = shape.slots;
  EPSIM_CHECK(experts_of_slots_.size() == layers * slots);
  EPSIM_CHECK(replica_order.empty() || replica_order.size() == layers * slots);

  constexpr Slot kNone{-1};
  replicas_.assign(layers * slots, kNone);
  replica_begin_.assign(layers * (experts + 1), 0);
  std::vector<int32_t> next(experts);
  for (size_t layer = 0; layer < layers; ++layer) {
    const LogicalExpert* const expert_of_slot = experts_of_slots_.data() + layer * slots;
    Slot* const replicas = replicas_.data() + layer * slots;
    int32_t* const begin = replica_begin_.data() + layer * (experts + 1);
    for (size_t slot = 0; slot < slots; ++slot) {
      if (expert_of_slot[slot] == kNoExpert) continue;
      EPSIM_CHECK(Index(expert_of_slot[slot]) < experts);
      ++begin[Index(expert_of_slot[slot]) + 1];
    }
    for (size_t expert = 0; expert < experts; ++expert) {
      EPSIM_CHECK(begin[expert + 1] > 0);
      begin[expert + 1] += begin[expert];
    }
    if (replica_order.empty()) {
      std::copy(begin, begin + experts, next.begin());
      for (size_t slot = 0; slot < slots; ++slot) {
        if (expert_of_slot[slot] == kNoExpert) continue;
        replicas[next[Index(expert_of_slot[slot])]++] = Slot(static_cast<int32_t>(slot));
      }
      continue;
    }
    for (size_t slot = 0; slot < slots; ++slot) {
      if (expert_of_slot[slot] == kNoExpert) continue;
      const size_t expert = Index(expert_of_slot[slot]);
      const int32_t order = replica_order[layer * slots + slot];
      EPSIM_CHECK(order >= 0 && order < begin[expert + 1] - begin[expert]);
      Slot& place = replicas[begin[expert] + order];
      EPSIM_CHECK(place == kNone);
      place = Slot(static_cast<int32_t>(slot));
    }
  }
}

void Placement::TakeLayer(Layer layer, const Placement& other) {
  EPSIM_CHECK(shape_ == other.shape_ && Index(layer) < static_cast<size_t>(shape_.layers));
  const auto copy = [layer](const auto& from, size_t row, auto* to) {
    const auto begin = from.begin() + static_cast<std::ptrdiff_t>(Index(layer) * row);
    std::copy(begin, begin + static_cast<std::ptrdiff_t>(row),
              to->begin() + static_cast<std::ptrdiff_t>(Index(layer) * row));
  };
  copy(other.experts_of_slots_, static_cast<size_t>(shape_.slots), &experts_of_slots_);
  copy(other.replicas_, static_cast<size_t>(shape_.slots), &replicas_);
  copy(other.replica_begin_, static_cast<size_t>(shape_.experts) + 1, &replica_begin_);
}

absl::Span<const LogicalExpert> Placement::experts_of_slots(Layer layer) const {
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(shape_.layers));
  const size_t slots = shape_.slots;
  return {experts_of_slots_.data() + Index(layer) * slots, slots};
}

absl::Span<const Slot> Placement::replicas(Layer layer, LogicalExpert expert) const {
  EPSIM_CHECK(Index(layer) < static_cast<size_t>(shape_.layers));
  EPSIM_CHECK(Index(expert) < static_cast<size_t>(shape_.experts));
  const int32_t* const begin = replica_begin_.data() + Index(layer) * (shape_.experts + 1) + Index(expert);
  return {replicas_.data() + Index(layer) * shape_.slots + begin[0], static_cast<size_t>(begin[1] - begin[0])};
}

}  // namespace epsim
