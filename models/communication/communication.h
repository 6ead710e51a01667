// A communication strategy carries tokens to the ranks of their experts (dispatch) and the experts' results back
// (combine), as a library does it: who gets a copy, in which format, with which kernels.  It turns the routing of a
// layer into an exchange; the network model turns the exchange's bytes into time.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/units.h"
#include "models/communication/communication.pb.h"
#include "models/communication/exchange.h"
#include "models/costs/costs.pb.h"
#include "models/model.pb.h"
#include "models/routing/token_routing.h"
#include "platforms/cluster.h"

namespace epsim {

// What a strategy takes besides time.
struct CommunicationFootprint {
  int sms = 0;      // Streaming multiprocessors that its kernels hold while they run.
  Bytes buffers{};  // Of GPU memory, on each rank, for setup.max_tokens_per_rank.
  // The counts of tokens per expert that rebalancing goes by reach all ranks with the tokens; otherwise they cost an
  // all-reduce of their own.
  bool statistics_ride_along = false;
  // Tokens are quantised before they are sent; otherwise bf16 travels, and where experts take another format their rank
  // quantises.
  bool quantised_dispatch = true;
  bool has_dispatch = true;  // False where every rank has all tokens already (all_reduce).
};

// What the strategy has to work for.
struct CommunicationSetup {
  const Cluster* cluster;  // Outlives the strategy.
  ModelSpec model;
  Precision precision;  // Without defaults (CompleteCostConfig).
  int slots = 0;        // Of a layer, over all ranks.
  // The most tokens of one rank in one exchange: buffers are made for them.
  int max_tokens_per_rank = 0;
};

// One forward pass, as far as strategies can refuse it.
struct ForwardShape {
  int max_tokens_per_rank = 0;  // In one exchange.
  int chunks = 1;
  bool prefill = false;  // Some rank has prompts in the pass.
};

class Communication {
 public:
  virtual ~Communication() = default;

  // The strategy in use, as the schema calls it.  This, detail() apart, may change with Admit: see automatic.h.
  virtual std::string name() const = 0;
  // What of the routing, besides tokens and tokens between ranks, the exchanges are made of.
  virtual RoutingDetail detail() const = 0;
  virtual CommunicationFootprint footprint() const = 0;
  // Asked before each forward pass, in order.  A chosen strategy fails with its reason and with what would do; in a
  // reference's order it gives way as the reference has it.
  virtual absl::Status Admit(const ForwardShape& shape) = 0;

  // Bytes between ranks, and what the kernels take.  `exchange` is replaced; vectors are resized as needed, the
  // diagonal of the traffic is zero.  Where there is no dispatch, that one is empty.
  virtual void Dispatch(const RoutedLayer& routed, Exchange* exchange) const = 0;
  virtual void Combine(const RoutedLayer& routed, Exchange* exchange) const = 0;
  // The all-reduce of load statistics (an int32 per expert and layer, `layers` layers at once).
  // REQUIRES: they do not ride along.
  virtual void Statistics(int layers, Exchange* exchange) const = 0;

  // What the reader of a report must know: strategies that were passed over, and why; timing that was assumed.
  virtual std::vector<std::string> notes() const = 0;
};

// `config` with its defaults: all_to_all, and the strategies' own, as the schema states them.
CommunicationConfig CompleteCommunicationConfig(CommunicationConfig config);

// Fails, with what would be feasible, where the strategy cannot work for `setup`.  Defaults of a strategy are filled
// in.
absl::StatusOr<std::unique_ptr<Communication>> NewCommunication(const CommunicationConfig& config,
                                                                const CommunicationSetup& setup);

}  // namespace epsim
