// Where a token goes whose expert has several replicas.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/random_stream.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica.pb.h"

namespace epsim {

// A fixed choice: the slot that tokens of each source rank use for each expert.
struct ReplicaTable {
  int layers = 0, ranks = 0, experts = 0;
  std::vector<uint16_t> slot;  // [layers, source ranks, experts]

  absl::Span<const uint16_t> of(Layer layer, Rank source) const {
    return {slot.data() + (Index(layer) * ranks + Index(source)) * experts, static_cast<size_t>(experts)};
  }
};

class ReplicaChoice {
 public:
  virtual ~ReplicaChoice() = default;
  // Fills the part of `layer` in *table, which has the layers, ranks and experts of the placement.
  // ENSURES: every entry is a replica of its expert.
  virtual void ChooseLayer(const Placement& placement, Layer layer, RandomStream* random, ReplicaTable* table) = 0;

  // All layers, in order.
  ReplicaTable Choose(const Placement& placement, RandomStream* random);
};

absl::StatusOr<std::unique_ptr<ReplicaChoice>> NewReplicaChoice(const ReplicaChoiceConfig& config);

}  // namespace epsim
