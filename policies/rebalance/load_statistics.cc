#include "policies/rebalance/load_statistics.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {

LoadStatistics::LoadStatistics(const LoadStatisticsConfig& config, const PlacementShape& shape)
    : shape_(shape),
      by_slot_(config.attribution() == LoadStatisticsConfig::AT_PLANNING),
      alignment_(config.counts() == LoadStatisticsConfig::ALIGNED ? static_cast<int32_t>(config.alignment()) : 1),
      decay_(config.has_decay() ? config.decay().decay() : 1),
      cleared_by_planning_(config.cleared_by_planning()),
      row_size_(by_slot_ ? shape.slots : shape.experts),
      histories_(shape.layers) {
  EPSIM_CHECK(config.memory_case() != LoadStatisticsConfig::MEMORY_NOT_SET && alignment_ > 0);
  if (config.has_window()) {
    const int64_t steps = config.window().steps(), most = config.max_rows();
    EPSIM_CHECK(steps > 0 && most > 0);
    steps_per_row_ = (steps + most - 1) / most;
    max_rows_ = static_cast<int>((steps + steps_per_row_ - 1) / steps_per_row_);
  }
}

void LoadStatistics::Add(Layer layer, absl::Span<const int32_t> tokens_per_slot, const Placement& in_force) {
  EPSIM_CHECK(tokens_per_slot.size() == static_cast<size_t>(shape_.slots));
  History& history = histories_[Index(layer)];
  if (history.rows.empty()) history.rows.assign(max_rows_ * row_size_, 0.0);
  if (decay_ < 1) {
    history.count = 1;
    for (double& load : history.rows) load *= decay_;
  } else if (history.count == 0 || history.steps_in_last == steps_per_row_) {
    if (history.count == max_rows_) {
      history.first = (history.first + 1) % max_rows_;
    } else {
      ++history.count;
    }
    double* const fresh = row(history, history.count - 1);
    std::fill(fresh, fresh + row_size_, 0.0);
    history.steps_in_last = 0;
  }
  ++history.steps_in_last;
  double* const last = row(history, history.count - 1);
  const absl::Span<const LogicalExpert> experts = in_force.experts_of_slots(layer);
  for (size_t slot = 0; slot < tokens_per_slot.size(); ++slot) {
    if (tokens_per_slot[slot] == 0) continue;
    const int32_t tokens = (tokens_per_slot[slot] + alignment_ - 1) / alignment_ * alignment_;
    last[by_slot_ ? slot : Index(experts[slot])] += tokens;
  }
}

LoadWindow LoadStatistics::Window(absl::Span<const Layer> layers, const Placement& in_force) {
  int rows = 0;
  for (Layer layer : layers) rows = std::max(rows, histories_[Index(layer)].count);
  const size_t size = static_cast<size_t>(shape_.layers) * shape_.experts;
  window_.assign(rows * size, 0.0);
  for (Layer layer : layers) {
    History& history = histories_[Index(layer)];
    const absl::Span<const LogicalExpert> experts = in_force.experts_of_slots(layer);
    for (int i = 0; i < history.count; ++i) {
      // The newest rows stand last, whatever a layer lacks of old ones.
      double* const to = &window_[(rows - history.count + i) * size + Index(layer) * shape_.experts];
      const double* const from = row(history, i);
      for (size_t j = 0; j < row_size_; ++j) {
        const size_t expert = by_slot_ ? Index(experts[j]) : j;
        if (by_slot_ && experts[j] == kNoExpert) continue;
        to[expert] += from[j];
      }
    }
  }
  return {.rows = rows,
          .layers = shape_.layers,
          .experts = shape_.experts,
          .steps_per_row = steps_per_row_,
          .tokens = window_};
}

void LoadStatistics::Planned(Layer layer) {
  if (cleared_by_planning_) histories_[Index(layer)] = History{};
}

void LoadStatistics::Clear() { histories_.assign(histories_.size(), History{}); }

}  // namespace epsim
