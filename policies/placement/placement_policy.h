// A placement policy decides which experts get replicas and which rank holds each, from what a production balancer
// sees: past load, measured cost, the topology.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/random_stream.h"
#include "engine/units.h"
#include "policies/placement/placement.h"
#include "policies/placement/placement.pb.h"

namespace epsim {

// Tokens routed to each logical expert in past steps, oldest first.  A row sums `steps_per_row` consecutive steps.
// Whole numbers, unless old steps count for less than new ones.
struct LoadWindow {
  int rows = 0, layers = 0, experts = 0;
  int64_t steps_per_row = 1;
  absl::Span<const double> tokens;  // [rows, layers, experts]

  // Of one row and layer.  [experts]
  absl::Span<const double> of(int row, Layer layer) const {
    return tokens.subspan((static_cast<size_t>(row) * layers + Index(layer)) * experts, experts);
  }
  // Sum over rows.  [layers, experts]
  std::vector<double> Total() const;
};

// Which experts past tokens chose together: a sample of tokens, the same number in every layer.
struct CoActivation {
  int layers = 0, tokens = 0, top_k = 0;
  absl::Span<const uint16_t> experts;  // [layers, tokens, top_k], logical; kNone where a token has fewer.
  static constexpr uint16_t kNone = 0xffff;

  absl::Span<const uint16_t> of(Layer layer) const {
    const size_t size = static_cast<size_t>(tokens) * top_k;
    return experts.subspan(Index(layer) * size, size);
  }
};

// What a profiler has measured of each expert.
struct ExpertProfile {
  int layers = 0, experts = 0;
  absl::Span<const double> time_per_token;  // [layers, experts], in picoseconds.
};

// What copies of tokens take of the links of one rank, in picoseconds for each copy, dispatched and returned.  Copies
// between ranks of a node share a port with those between nodes where these pass through it (PCIe without NVLink).
struct PortTime {
  double node_ps = 0;     // Of the port in the node, for a copy from or to another rank of the node.
  double through_ps = 0;  // Of the same port, for one from or to another node; 0 where it does not pass.
  double network_ps = 0;  // Of the NIC and what is above it, for one from or to another node.

  double Busy(double node_copies, double network_copies) const {
    const double node = node_copies * node_ps + network_copies * through_ps, network = network_copies * network_ps;
    return node > network ? node : network;
  }
};

// What the exchange of a layer takes, dispatch and combine together: as long as the busiest port, and the latency of
// the longest way.  A link that ranks share is counted as if all of them used it alike.
struct ExchangeCost {
  // How often a token goes to where several of its experts are.
  enum class Copies : uint8_t {
    kOncePerRank,
    kOncePerNode,  // Over the network, to the rank with the place of the token's own; from there once to each rank.
    kOncePerExpert,
  };
  Copies copies = Copies::kOncePerRank;
  std::vector<PortTime> sending;               // [ranks]: copies of the rank's own tokens.
  std::vector<PortTime> receiving;             // [ranks]: copies of tokens that its experts compute.
  Duration node_latency{}, network_latency{};  // Of copies within nodes, and where some cross the network.
};

// What a placement would cost, as far as measurements tell.  Declared here for policies to ask; models implements it.
class CostView {
 public:
  virtual ~CostView() = default;
  // Time for one rank to compute the experts of a layer, `tokens_per_slot` of them for `experts`.  Both [slots of one
  // rank].
  virtual Duration ExpertTime(Layer layer, absl::Span<const LogicalExpert> experts,
                              absl::Span<const int32_t> tokens_per_slot) const = 0;
  // Of every layer.  Null where it is not known, or the same whatever the placement.
  virtual const ExchangeCost* exchange() const { return nullptr; }
};

struct PlacementRequest {
  LoadWindow window;
  const Placement* previous = nullptr;  // In force so far; null before the first plan.
  // The layers to place, ascending; empty: all.  Others stay as in `previous`, which is then not null.
  absl::Span<const Layer> layers;
  // Ranks that are away, ascending: their slots hold nothing.
  absl::Span<const Rank> failed;
  const CostView* cost = nullptr;               // Null where nothing has been measured.
  const ExpertProfile* profile = nullptr;       // Likewise.
  const CoActivation* co_activation = nullptr;  // Likewise.
  RandomStream* random = nullptr;               // The policy's own stream.  Never null.
};

// Equal sequences of requests give equal placements: no clock, no other randomness, no I/O.  A policy may keep state
// from one request to the next.
class PlacementPolicy {
 public:
  virtual ~PlacementPolicy() = default;

  // REQUIRES: the window has the layers and experts of the policy's shape.
  // ENSURES: every expert has a slot in every layer, on a rank that has not failed.
  // Fails on a load that is not finite or negative; where the policy goes by load, on a window without rows; on a
  // request that lacks a view the policy decides by.
  virtual absl::StatusOr<Placement> Place(const PlacementRequest& request) = 0;

  // The layers that the last placement changed, most urgent first, for a rebalancer that changes a few at a time.
  // Empty: the policy does not say.
  virtual std::vector<Layer> change_order() const { return {}; }
};

// The policy's name in the schema; "none" where none is chosen.
std::string PlacementName(const PlacementPolicyConfig& config);

// Whether a policy looks at load at all: only then planning matters.
bool GoesByLoad(const PlacementPolicyConfig& config);
// Whether it looks at PlacementRequest::co_activation and CostView::exchange(): only then are they worth recording.
bool GoesByCoActivation(const PlacementPolicyConfig& config);

// Whether it looks at PlacementRequest::profile: only then are experts profiled.
bool GoesByProfile(const PlacementPolicyConfig& config);

// Fails if `config` names no policy or the policy cannot serve `shape` (slots not divisible by ranks, fewer slots than
// experts...): the error says what would fit.  The policy checks its requests.
absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewPlacementPolicy(const PlacementPolicyConfig& config,
                                                                    const PlacementShape& shape);

// What every policy needs of a shape; each adds its own.
absl::Status CheckPlacementShape(const PlacementShape& shape);

}  // namespace epsim
