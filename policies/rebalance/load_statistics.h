// What a balancer remembers of past load: counted slot by slot as an engine's recorder does, handed to placement
// policies expert by expert.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "policies/placement/placement.h"
#include "policies/placement/placement_policy.h"
#include "policies/rebalance/rebalance.pb.h"

namespace epsim {

// Rows are rings of their own for each layer, because layers may start anew at different times.  With a window of W
// steps and at most M rows, a row sums s = ceil(W / M) steps, and the window holds the newest ceil(W / s) rows.  Of
// these the last may still be filling: once the ring has gone round, it counts up to s - 1 steps fewer than all rows
// hold.
class LoadStatistics {
 public:
  // REQUIRES: `config` is complete (rebalance_config.h).
  LoadStatistics(const LoadStatisticsConfig& config, const PlacementShape& shape);

  // Adds one step of a layer: tokens of each slot [slots], which held the experts of `in_force`.
  void Add(Layer layer, absl::Span<const int32_t> tokens_per_slot, const Placement& in_force);

  // Of `layers` (ascending; others are zero), as many rows as the one of them that has the most.  `in_force`: the
  // placement when the plan is made.  Valid until the next call.
  LoadWindow Window(absl::Span<const Layer> layers, const Placement& in_force);

  // The layer has been planned: its statistics start anew where the configuration says so.
  void Planned(Layer layer);
  // Forgets everything.
  void Clear();

 private:
  struct History {
    std::vector<double> rows;  // [max_rows, row_size_], a ring.
    int first = 0, count = 0;
    int64_t steps_in_last = 0;
  };
  double* row(History& history, int i) {
    return &history.rows[static_cast<size_t>((history.first + i) % max_rows_) * row_size_];
  }

  const PlacementShape shape_;
  const bool by_slot_;
  const int32_t alignment_;
  const double decay_;  // 1 for a window.
  int64_t steps_per_row_ = 1;
  int max_rows_ = 1;
  const bool cleared_by_planning_;
  const size_t row_size_;           // Slots or experts.
  std::vector<History> histories_;  // [layers]
  std::vector<double> window_;      // [rows, layers, experts]
};

}  // namespace epsim
