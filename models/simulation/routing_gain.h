// What a routing policy was worth in a run: balance gained, kernel time spent, and how far the model's own choice of
// experts was departed from.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "models/simulation/observer.h"

namespace epsim {

// Of one layer, or of all together.  Times are sums over steps, of one run of each layer.
struct RoutingWorth {
  int64_t layer_steps = 0;            // Layers times steps.
  int64_t routed_anew = 0;            // Of those.
  Duration balance_gain{};            // Expert time of the busiest rank: as captured - as routed.  May be negative.
  Duration overhead{};                // Of the policy's kernel on the slowest rank.
  Duration empty_overhead{};          // What it would have been without tokens.
  int64_t pairs = 0, kept_pairs = 0;  // Captured token-expert pairs, and those still there.
  int64_t tokens = 0, dropped_tokens = 0;  // Tokens, a layer each, that had an expert, and those that have none now.
  int64_t batch_tokens = 0;                // Tokens of the EP group's batch, summed over `routed_anew`.

  Duration net_gain() const { return balance_gain - overhead; }
  double kept_share() const;     // 1 where there are none.
  double dropped_share() const;  // 0 where there are none.
  // The batch at which the net gain turns positive, in tokens of the EP group, if gain and overhead go on as straight
  // lines: with means over what was routed anew, T tokens, gain G (0 for an empty batch), overhead O (F for an empty
  // batch),
  //   G * t / T > F + (O - F) * t / T   for   t > F * T / (G - (O - F)).
  // None where nothing was routed anew, or G <= O - F: at no batch.
  std::optional<double> break_even_tokens() const;
};

class RoutingGain : public Observer {
 public:
  explicit RoutingGain(int moe_layers) : layers_(static_cast<size_t>(moe_layers)) {}

  void OnStage(const StageRecord&) override {}
  void OnStepEnd(const StepRecord& step) override;

  int64_t steps() const { return steps_; }
  const std::vector<RoutingWorth>& layers() const { return layers_; }  // [MoE layers]
  RoutingWorth Total() const;

 private:
  int64_t steps_ = 0;
  std::vector<RoutingWorth> layers_;
};

}  // namespace epsim
