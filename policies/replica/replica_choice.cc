#include "policies/replica/replica_choice.h"

#include "absl/strings/str_cat.h"
#include "policies/replica/static_replica_choice.h"

namespace epsim {

ReplicaTable ReplicaChoice::Choose(const Placement& placement, RandomStream* random) {
  const PlacementShape& shape = placement.shape();
  ReplicaTable table{shape.layers, shape.ranks, shape.experts, {}};
  table.slot.resize(static_cast<size_t>(shape.layers) * shape.ranks * shape.experts);
  for (int layer = 0; layer < shape.layers; ++layer) ChooseLayer(placement, Layer(layer), random, &table);
  return table;
}

absl::StatusOr<std::unique_ptr<ReplicaChoice>> NewReplicaChoice(const ReplicaChoiceConfig& config) {
  switch (config.choice_case()) {
    case ReplicaChoiceConfig::kStaticNearest:
      return NewStaticReplicaChoice();
    case ReplicaChoiceConfig::CHOICE_NOT_SET:
      return absl::InvalidArgumentError("replica: no choice is made");
  }
  return absl::InvalidArgumentError(absl::StrCat("replica: unknown choice ", static_cast<int>(config.choice_case())));
}

}  // namespace epsim
