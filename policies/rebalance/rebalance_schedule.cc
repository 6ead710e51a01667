#include "policies/rebalance/rebalance_schedule.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

RebalanceSchedule::RebalanceSchedule(const RebalanceConfig& config, int layers) : config_(config), layers_(layers) {
  EPSIM_CHECK(config.mode_case() != RebalanceConfig::MODE_NOT_SET && config.interval_steps() > 0);
  if (!config.has_none() && !config.has_online()) due_after_ = std::max<int64_t>(1, config.first_after_steps());
}

void RebalanceSchedule::StepEnded(double utilization) {
  ++steps_;
  ++all_steps_;
  utilization_.push_back(utilization);
  sum_ += utilization;
  if (utilization_.size() <= kUtilizationSteps) return;
  sum_ -= utilization_.front();
  utilization_.pop_front();
}

std::optional<double> RebalanceSchedule::TooWellBalanced() const {
  // SGLang takes a threshold close to 1 for none.
  if (utilization_.empty() || config_.min_utilization_threshold() >= 1) return std::nullopt;
  const double mean = sum_ / static_cast<double>(utilization_.size());
  return mean > config_.min_utilization_threshold() ? std::optional(mean) : std::nullopt;
}

void RebalanceSchedule::Planned() {
  steps_ = 0;
  if (due_after_ > 0) due_after_ = config_.interval_steps();  // A failure makes plans in any mode.
}

void RebalanceSchedule::Settled() {
  if (config_.has_chunked()) steps_ = 0;
}

std::vector<Layer> RebalanceSchedule::Turn() const {
  std::vector<Layer> layers;
  if (!config_.has_online() || all_steps_ < config_.first_after_steps()) return layers;
  const int64_t updates = std::min<int64_t>(config_.online().layer_updates_per_iter(), layers_);
  const int64_t full = (layers_ + updates - 1) / updates;  // Turns that reach every layer.
  // The first turn has layers 0, full, 2 full...; the last one has as many only if full divides them.
  const int64_t turns = layers_ % full == 0 ? full + 1 : full;
  const int64_t turn = (all_steps_ - config_.first_after_steps()) % turns;
  for (int64_t layer = turn; turn < full && layer < layers_; layer += full) {
    layers.push_back(Layer(static_cast<int32_t>(layer)));
  }
  return layers;
}

double Utilization(absl::Span<const int64_t> tokens_of_rank, int ranks) {
  constexpr double kSmall = 1e-5;
  double sum = 0;
  const size_t layers = tokens_of_rank.size() / ranks;
  for (size_t layer = 0; layer < layers; ++layer) {
    const absl::Span<const int64_t> tokens = tokens_of_rank.subspan(layer * ranks, ranks);
    double total = 0;
    int64_t most = 0;
    for (int64_t count : tokens) {
      total += static_cast<double>(count);
      most = std::max(most, count);
    }
    sum += (total / ranks + kSmall) / (static_cast<double>(most) + kSmall);
  }
  return layers == 0 ? 1 : sum / static_cast<double>(layers);
}

}  // namespace epsim
