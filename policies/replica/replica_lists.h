// The replicas of one layer, packed for a look-up by every token.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"

namespace epsim {

class ReplicaLists {
 public:
  ReplicaLists(const Placement& placement, Layer layer) {
    const size_t experts = static_cast<size_t>(placement.shape().experts);
    first_.reserve(experts);
    count_.reserve(experts);
    slots_.reserve(static_cast<size_t>(placement.shape().slots));
    for (size_t e = 0; e < experts; ++e) {
      const absl::Span<const Slot> replicas = placement.replicas(layer, LogicalExpert(static_cast<int32_t>(e)));
      first_.push_back(static_cast<uint32_t>(slots_.size()));
      count_.push_back(static_cast<uint32_t>(replicas.size()));
      for (const Slot slot : replicas) slots_.push_back(static_cast<uint16_t>(Index(slot)));
    }
  }

  size_t experts() const { return count_.size(); }
  uint32_t count(size_t expert) const { return count_[expert]; }
  // The i-th replica in the placement's order, i < count(expert).
  uint16_t slot(size_t expert, uint32_t i) const { return slots_[first_[expert] + i]; }

 private:
  std::vector<uint32_t> first_, count_;  // [experts]
  std::vector<uint16_t> slots_;          // Expert by expert.
};

// The weights of PerCallReplicaChoice::Share where all replicas of an expert have an equal part.
inline void ShareEqually(const Placement& placement, Layer layer, absl::Span<const uint32_t> pairs_of_expert,
                         absl::Span<uint32_t> weight) {
  const absl::Span<const LogicalExpert> experts = placement.experts_of_slots(layer);
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    weight[slot] = experts[slot] != kNoExpert && pairs_of_expert[Index(experts[slot])] > 0 ? 1 : 0;
  }
}

}  // namespace epsim
