// From the ids of a step to what the layer has to do: tokens per slot, and which ranks the tokens visit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "policies/placement/placement.h"
#include "policies/replica/replica_choice.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// One layer of one step.
struct RoutedLayer {
  std::vector<int32_t> tokens_per_slot;  // [slots]: token-expert pairs that each slot computes.
  // [ranks, ranks], source-major: tokens of the source rank with at least one expert on the destination.  A token goes
  // once to each rank that it visits, however many of its experts are there; the diagonal counts tokens that stay.
  std::vector<int32_t> tokens_between;
  int64_t pairs = 0;  // Token-expert pairs in all: the sum of tokens_per_slot.
};

// Counts the layers of a batch under one placement and one fixed replica choice.  Every instruction set gives the same
// counts; the fastest that the machine has is taken when the object is made.
class TokenRouting {
 public:
  virtual ~TokenRouting() = default;
  // Replaces *routed.  A batch without ids (counts only) is counted as in expected_routing.h.  Thread-safe.
  // REQUIRES: ids below the shape's experts, distinct in a token (TraceReader has checked it).
  virtual void Count(const StepBatch& batch, Layer layer, RoutedLayer* routed) const = 0;
};

// `table` must outlive the routing.
std::unique_ptr<TokenRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table);

enum class InstructionSet {
  kPortable,
  kAvx512,  // With VBMI, BITALG and GFNI: Intel from Ice Lake, AMD from Zen 4.
};
const char* InstructionSetName(InstructionSet set);
// What this machine can run, the fastest last.
std::vector<InstructionSet> SupportedInstructionSets();
// REQUIRES: `set` is among SupportedInstructionSets().
std::unique_ptr<TokenRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table,
                                              InstructionSet set);

}  // namespace epsim
