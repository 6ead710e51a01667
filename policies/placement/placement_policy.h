// A placement policy decides which experts get replicas and which rank holds each, from what a production balancer
// sees: past load, measured cost, the topology.
#pragma once

#include <cstdint>
#include <memory>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/random_stream.h"
#include "engine/units.h"
#include "policies/placement/placement.h"
#include "policies/policies.pb.h"

namespace epsim {

// Tokens routed to each logical expert in past steps, oldest first.  A row sums `steps_per_row` consecutive steps.
struct LoadWindow {
  int rows = 0, layers = 0, experts = 0;
  int64_t steps_per_row = 1;
  absl::Span<const int64_t> tokens;  // [rows, layers, experts]

  // Sum over rows.  [layers, experts]
  std::vector<int64_t> Total() const;
};

// What a placement would cost, as far as measurements tell.  Declared here for policies to ask; models implements it.
class CostView {
 public:
  virtual ~CostView() = default;
  // Time for one rank to compute an expert layer with `tokens_per_slot` [slots of one rank].
  virtual Duration ExpertTime(absl::Span<const int32_t> tokens_per_slot) const = 0;
};

struct PlacementRequest {
  LoadWindow window;
  const Placement* previous = nullptr;  // In force so far; null before the first plan.
  const CostView* cost = nullptr;       // Null where nothing has been measured.
  RandomStream* random = nullptr;       // The policy's own stream.  Never null.
};

// Equal sequences of requests give equal placements: no clock, no other randomness, no I/O.  A policy may keep state
// from one request to the next.
class PlacementPolicy {
 public:
  virtual ~PlacementPolicy() = default;

  // REQUIRES: the window has the layers and experts of the policy's shape.
  // ENSURES: every expert has a slot in every layer.
  virtual Placement Place(const PlacementRequest& request) = 0;
};

// Fails if `config` names no policy or the policy cannot serve `shape` (slots not divisible by ranks, fewer slots than
// experts...): the error says what would fit.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewPlacementPolicy(const PlacementPolicyConfig& config,
                                                                    const PlacementShape& shape);

}  // namespace epsim
