// A routing policy decides which experts a token goes to.  The router's own choice, the top-k of each token, is in the
// trace; a policy that changes it changes what the model computes, for the sake of balance.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/ids.h"
#include "policies/routing/routing.pb.h"

namespace epsim {

struct RoutingShape {
  int layers = 0;
  int experts = 0;  // Logical, in a layer; at most 65536.
  int top_k = 0;    // At most 255.
  int ranks = 0;    // Of the EP group.
};

// The tokens of one source rank in one layer, as the router saw them.
struct RoutingRequest {
  int tokens = 0;                       // At least 1.
  absl::Span<const float> scores;       // [tokens, experts]: higher is better; none is NaN.
  absl::Span<const uint16_t> own;       // [tokens, top_k]: the router's choice, the best first.
  absl::Span<const uint8_t> own_count;  // [tokens]: how many of the top_k there are; the places behind have no meaning.
};

// Where those tokens go.
struct RoutingChoice {
  std::vector<uint16_t> experts;  // [tokens, top_k], distinct in a token.
  std::vector<uint8_t> count;     // [tokens]: how many of the top_k there are; may be 0.
};

// Equal sequences of calls give equal choices: no clock, no randomness, no I/O.
class RoutingPolicy {
 public:
  virtual ~RoutingPolicy() = default;

  // A step of `tokens` tokens of the EP group begins.
  virtual void BeginStep(int64_t tokens) = 0;
  // Whether this step's tokens are routed anew in `layer`; if not, they go where the router sent them.
  virtual bool Routes(Layer layer) const = 0;
  // Routes anew.  Replaces *choice.  Thread-safe.
  virtual void Route(Layer layer, const RoutingRequest& request, RoutingChoice* choice) const = 0;
  // The step has ended.  `load` [layers, experts]: the tokens that the router itself sent to each expert; empty unless
  // the policy goes by it (GoesByRouterLoad).
  virtual void EndStep(absl::Span<const int32_t> load) = 0;
  // The first failure of a policy that can fail, a plug-in; since then tokens may go where the router sent them.  To be
  // asked in every step before what it has routed is believed.
  virtual absl::Status status() const { return absl::OkStatus(); }
};

// Whether a policy may route tokens anew at all; what does not costs nothing.
bool ChangesRouting(const RoutingPolicyConfig& config);
// Whether a policy decides by the load of past steps.
bool GoesByRouterLoad(const RoutingPolicyConfig& config);
// As the schema spells it: "expert_choice".
std::string RoutingPolicyName(const RoutingPolicyConfig& config);

// `config` with every default filled in; without a policy it gets `token_choice`.  Fails on values out of range: the
// error names the field and says what would fit.
absl::StatusOr<RoutingPolicyConfig> CompleteRoutingConfig(const RoutingPolicyConfig& config);

// Defaults need not be filled in.
absl::StatusOr<std::unique_ptr<RoutingPolicy>> NewRoutingPolicy(const RoutingPolicyConfig& config,
                                                                const RoutingShape& shape);

}  // namespace epsim
