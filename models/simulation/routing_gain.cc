#include "models/simulation/routing_gain.h"

#include "engine/check.h"

namespace epsim {
namespace {

void Add(const RoutingWorth& part, RoutingWorth* whole) {
  whole->layer_steps += part.layer_steps;
  whole->routed_anew += part.routed_anew;
  whole->balance_gain += part.balance_gain;
  whole->overhead += part.overhead;
  whole->empty_overhead += part.empty_overhead;
  whole->pairs += part.pairs;
  whole->kept_pairs += part.kept_pairs;
  whole->tokens += part.tokens;
  whole->dropped_tokens += part.dropped_tokens;
  whole->batch_tokens += part.batch_tokens;
}

double Ratio(int64_t part, int64_t whole) { return static_cast<double>(part) / static_cast<double>(whole); }

}  // namespace

double RoutingWorth::kept_share() const { return pairs == 0 ? 1 : Ratio(kept_pairs, pairs); }

double RoutingWorth::dropped_share() const { return tokens == 0 ? 0 : Ratio(dropped_tokens, tokens); }

std::optional<double> RoutingWorth::break_even_tokens() const {
  const Duration growing = balance_gain - (overhead - empty_overhead);
  if (routed_anew == 0 || growing <= Duration{}) return std::nullopt;
  return Ratio(empty_overhead.count(), growing.count()) * Ratio(batch_tokens, routed_anew);
}

void RoutingGain::OnStepEnd(const StepRecord& step) {
  EPSIM_CHECK(step.routing.size() == layers_.size());
  ++steps_;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const LayerRouting& layer = step.routing[i];
    const RoutingDeparture& departure = layer.departure;
    Add({.layer_steps = 1,
         .routed_anew = departure.routed_anew,
         .balance_gain = layer.captured_expert_time - layer.expert_time,
         .overhead = layer.overhead,
         .empty_overhead = layer.empty_overhead,
         .pairs = departure.pairs,
         .kept_pairs = departure.kept_pairs,
         .tokens = departure.tokens,
         .dropped_tokens = departure.dropped_tokens,
         .batch_tokens = departure.routed_anew ? step.batch->tokens : 0},
        &layers_[i]);
  }
}

RoutingWorth RoutingGain::Total() const {
  RoutingWorth total;
  for (const RoutingWorth& layer : layers_) Add(layer, &total);
  return total;
}

}  // namespace epsim
