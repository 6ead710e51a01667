// From the ids of a step to what the layer has to do: tokens per slot, and which ranks the tokens visit.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "policies/placement/placement.h"
#include "policies/replica/replica_choice.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// What is counted besides tokens per slot and tokens between ranks.
struct RoutingDetail {
  bool pairs_between = false;
  bool tokens_to_node = false;
  friend bool operator==(const RoutingDetail&, const RoutingDetail&) = default;
};

// The tokens [begin[r], end[r]) of each source rank r: a chunk of a batch, or one of two that overlap.  [ranks]
struct TokenRange {
  std::vector<int32_t> begin, end;
};

// One layer of one step, or of a range of its tokens.
struct RoutedLayer {
  std::vector<int32_t> tokens_per_slot;  // [slots]: token-expert pairs that each slot computes.
  // [ranks, ranks], source-major: tokens of the source rank with at least one expert on the destination.  A token goes
  // once to each rank that it visits, however many of its experts are there; the diagonal counts tokens that stay.
  std::vector<int32_t> tokens_between;
  // [ranks, ranks], source-major: token-expert pairs of the source rank that the destination computes.  Empty unless
  // RoutingDetail asks for it.
  std::vector<int32_t> pairs_between;
  // [ranks, nodes], source-major: tokens of the source rank with at least one expert on the node.  Likewise.
  std::vector<int32_t> tokens_to_node;
  int64_t pairs = 0;            // Token-expert pairs in all: the sum of tokens_per_slot.
  std::vector<int32_t> tokens;  // [ranks]: of each source rank.

  // Nothing counted yet of the tokens in `range`.
  void Begin(const PlacementShape& shape, const TokenRange& range, const RoutingDetail& detail);
};

// Counts the layers of a batch under one placement and one replica choice.
class TokenRouting {
 public:
  virtual ~TokenRouting() = default;
  // Replaces *routed by the counts of the tokens in `range`.  A batch without ids (counts only) is counted as in
  // expected_routing.h.  Thread-safe.
  // REQUIRES: ids below the shape's experts, distinct in a token (TraceReader has checked it); the range within the
  // tokens of each rank.
  virtual void Count(const StepBatch& batch, const TokenRange& range, Layer layer, RoutedLayer* routed) const = 0;
};

// Ends the program unless the range is within the tokens of each of the `ranks` of the batch.
void CheckRange(const StepBatch& batch, const TokenRange& range, int ranks);

// All tokens of the batch.
TokenRange WholeBatch(const StepBatch& batch);

// A routing by a table that may change.
class TableRouting : public TokenRouting {
 public:
  // The table's part of `layer` has changed.  Not while layers are counted.
  virtual void Refresh(Layer layer) = 0;
};

// `table` must outlive the routing.  Every instruction set gives the same counts; the fastest that the machine has is
// taken when the object is made.
std::unique_ptr<TableRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table,
                                              const RoutingDetail& detail = {});

enum class InstructionSet {
  kPortable,
  kAvx512,  // With VBMI, BITALG and GFNI: Intel from Ice Lake, AMD from Zen 4.
};
const char* InstructionSetName(InstructionSet set);
// What this machine can run, the fastest last.
std::vector<InstructionSet> SupportedInstructionSets();
// REQUIRES: `set` is among SupportedInstructionSets().
std::unique_ptr<TableRouting> NewTokenRouting(const PlacementShape& shape, const ReplicaTable& table,
                                              const RoutingDetail& detail, InstructionSet set);

}  // namespace epsim
