#include "policies/routing/adaptive_routing.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/routing/expert_choice.h"

namespace epsim {
namespace {

constexpr uint32_t kMostWindowSteps = 4096;

class AdaptivePolicy : public RoutingPolicy {
 public:
  AdaptivePolicy(const AdaptiveRouting& config, const RoutingShape& shape)
      : config_(config),
        shape_(shape),
        expert_choice_(NewExpertChoice(config.expert_choice(), shape)),
        total_(static_cast<size_t>(shape.layers) * shape.experts),
        routes_(shape.layers) {}

  void BeginStep(int64_t tokens) override {
    if (tokens < config_.off_below_tokens()) large_ = false;
    if (tokens > config_.on_above_tokens()) large_ = true;
    const size_t experts = shape_.experts;
    for (int layer = 0; layer < shape_.layers; ++layer) {
      routes_[layer] =
          large_ && shape_.ranks > 1 && Variation({&total_[layer * experts], experts}) > config_.variation_threshold();
    }
  }
  bool Routes(Layer layer) const override { return routes_[Index(layer)]; }
  void Route(Layer layer, const RoutingRequest& request, RoutingChoice* choice) const override {
    expert_choice_->Route(layer, request, choice);
  }
  void EndStep(absl::Span<const int32_t> load) override {
    EPSIM_CHECK(load.size() == total_.size());
    // A ring: the step that leaves the window gives its place to the one that enters it.
    if (window_.size() < config_.window_steps()) window_.emplace_back(load.size(), 0);
    std::vector<int32_t>& place = window_[next_];
    next_ = (next_ + 1) % config_.window_steps();
    for (size_t i = 0; i < load.size(); ++i) total_[i] += load[i] - std::exchange(place[i], load[i]);
  }

 private:
  const AdaptiveRouting config_;
  const RoutingShape shape_;
  const std::unique_ptr<RoutingPolicy> expert_choice_;
  bool large_ = false;
  std::vector<std::vector<int32_t>> window_;  // [steps of the window so far], [layers, experts]
  size_t next_ = 0;                           // In window_.
  std::vector<int64_t> total_;                // Sum of window_.
  std::vector<bool> routes_;                  // [layers]
};

}  // namespace

double Variation(absl::Span<const int64_t> load) {
  double sum = 0, squares = 0;
  for (const int64_t tokens : load) sum += static_cast<double>(tokens);
  if (sum == 0) return 0;
  const double mean = sum / static_cast<double>(load.size());
  for (const int64_t tokens : load) {
    squares += (static_cast<double>(tokens) - mean) * (static_cast<double>(tokens) - mean);
  }
  return std::sqrt(squares / static_cast<double>(load.size())) / mean;
}

absl::Status CompleteAdaptiveRouting(AdaptiveRouting* config) {
  RETURN_IF_ERROR(CompleteExpertChoice("routing.adaptive.expert_choice", config->mutable_expert_choice()));
  if (!config->has_variation_threshold()) config->set_variation_threshold(0.2);
  const double variation = config->variation_threshold();
  if (!(variation >= 0) || !std::isfinite(variation)) {
    return absl::InvalidArgumentError(absl::StrCat("routing.adaptive.variation_threshold: ", variation,
                                                   " is not a number of 0 or more; 0.2 is the default"));
  }
  if (config->window_steps() == 0) config->set_window_steps(32);
  if (config->window_steps() > kMostWindowSteps) {
    return absl::InvalidArgumentError(absl::StrCat("routing.adaptive.window_steps: ", config->window_steps(),
                                                   " is more than ", kMostWindowSteps, ", the most that fit"));
  }
  if (!config->has_off_below_tokens()) config->set_off_below_tokens(32);
  if (!config->has_on_above_tokens()) config->set_on_above_tokens(std::max(128u, config->off_below_tokens()));
  if (config->on_above_tokens() < config->off_below_tokens()) {
    return absl::InvalidArgumentError(absl::StrCat("routing.adaptive.on_above_tokens: ", config->on_above_tokens(),
                                                   " is less than off_below_tokens ", config->off_below_tokens(), "; ",
                                                   config->off_below_tokens(), " or more would fit"));
  }
  return absl::OkStatus();
}

std::unique_ptr<RoutingPolicy> NewAdaptiveRouting(const AdaptiveRouting& complete, const RoutingShape& shape) {
  return std::make_unique<AdaptivePolicy>(complete, shape);
}

}  // namespace epsim
