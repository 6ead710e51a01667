// Where a token goes whose expert has several replicas.  A choice is of one of two kinds: fixed while a placement is in
// force, or made anew in every call of a layer's router.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/random_stream.h"
#include "engine/units.h"
#include "policies/placement/placement.h"
#include "policies/replica/replica.pb.h"
#include "policies/replica/router_call.h"

namespace epsim {

// What a choice adds to every call of a layer's router.
struct ReplicaPlanning {
  Duration time{};  // To decide, once what it decides by is known.
  // It waits for the tokens per expert of every source rank: 4 bytes an expert, gathered by all ranks.
  bool gathers_counts = false;
};

class FixedReplicaChoice;
class PerCallReplicaChoice;

class ReplicaChoice {
 public:
  virtual ~ReplicaChoice() = default;
  // One of them is this choice, the other null.
  virtual FixedReplicaChoice* fixed() { return nullptr; }
  virtual const PerCallReplicaChoice* per_call() const { return nullptr; }

  // Nothing where the choice is a look-up or a few instructions of kernels that are there in any case.
  virtual ReplicaPlanning planning() const { return {}; }
  // The first failure of a choice that can fail, a plug-in; since then it takes first replicas.  To be asked before what
  // it has chosen is believed.
  virtual absl::Status status() const { return absl::OkStatus(); }
};

// A fixed choice: the slot that tokens of each source rank use for each expert.
struct ReplicaTable {
  int layers = 0, ranks = 0, experts = 0;
  std::vector<uint16_t> slot;  // [layers, source ranks, experts]

  absl::Span<const uint16_t> of(Layer layer, Rank source) const {
    return {slot.data() + (Index(layer) * ranks + Index(source)) * experts, static_cast<size_t>(experts)};
  }
};

class FixedReplicaChoice : public ReplicaChoice {
 public:
  FixedReplicaChoice* fixed() override { return this; }

  // Fills the part of `layer` in *table, which has the layers, ranks and experts of the placement.
  // ENSURES: every entry is a replica of its expert.
  virtual void ChooseLayer(const Placement& placement, Layer layer, RandomStream* random, ReplicaTable* table) = 0;

  // All layers, in order.
  ReplicaTable Choose(const Placement& placement, RandomStream* random);
};

// Equal calls give equal slots, whatever was asked before, in any thread.
class PerCallReplicaChoice : public ReplicaChoice {
 public:
  const PerCallReplicaChoice* per_call() const override { return this; }

  // The slot that each token-expert pair goes to.  slots: [tokens of the call, top_k], the tokens of source rank 0
  // first; what follows a token's valid ids is left as it is.
  // ENSURES: every slot is a replica of its expert.
  virtual void Deal(const Placement& placement, const RouterCall& call, absl::Span<uint16_t> slots) const = 0;

  // Where only tokens per expert are known [experts]: in what measure an expert's pairs go to each of its replicas,
  // from every source the same.  weight: [slots].
  // ENSURES: weights are 0 but at replicas of experts with pairs, and of each of these experts add up to at least 1
  // and at most 2^32.
  virtual void Share(const Placement& placement, Layer layer, absl::Span<const uint32_t> pairs_of_expert,
                     absl::Span<uint32_t> weight) const = 0;
};

// `config` with its defaults: static_nearest where no choice is made, times where none are given.
ReplicaChoiceConfig CompleteReplicaChoiceConfig(const ReplicaChoiceConfig& config);

// Fails where `config` makes no choice, or on a planning time of more than a second.
absl::StatusOr<std::unique_ptr<ReplicaChoice>> NewReplicaChoice(const ReplicaChoiceConfig& config);

}  // namespace epsim
