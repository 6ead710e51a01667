// Where a token goes whose expert has several replicas.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/random_stream.h"
#include "policies/placement/placement.h"
#include "policies/policies.pb.h"

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
  // ENSURES: every entry is a replica of its expert.
  virtual ReplicaTable Choose(const Placement& placement, RandomStream* random) = 0;
};

absl::StatusOr<std::unique_ptr<ReplicaChoice>> NewReplicaChoice(const ReplicaChoiceConfig& config);

}  // namespace epsim
