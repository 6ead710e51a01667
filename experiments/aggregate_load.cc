#include "experiments/aggregate_load.h"

#include "experiments/step_facts.h"

namespace epsim {

AggregateLoad::AggregateLoad(const PlacementShape& shape)
    : shape_(shape), tokens_(static_cast<size_t>(shape.layers) * shape.ranks) {}

void AggregateLoad::OnStepEnd(const StepRecord& step) {
  for (int layer = 0; layer < shape_.layers; ++layer) {
    const std::vector<int32_t>& slots = step.layers[layer].tokens_per_slot;
    for (size_t slot = 0; slot < slots.size(); ++slot) {
      tokens_[static_cast<size_t>(layer) * shape_.ranks + slot / shape_.slots_per_rank()] += slots[slot];
    }
  }
}

double AggregateLoad::Balancedness() const {
  const absl::Span<const int64_t> tokens = tokens_;
  double sum = 0;
  for (int layer = 0; layer < shape_.layers; ++layer) {
    sum += epsim::Balancedness(tokens.subspan(static_cast<size_t>(layer) * shape_.ranks, shape_.ranks));
  }
  return sum / shape_.layers;
}

}  // namespace epsim
