#include "policies/placement/flashlb_placement.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "policies/placement/placement_change.h"
#include "policies/placement/replica_search.h"
#include "policies/placement/slot_alignment.h"

namespace epsim {
namespace {

// The latest rows of one layer.
class LayerWindow {
 public:
  void Add(absl::Span<const double> row, size_t most) {
    if (rows_.size() == most) rows_.pop_front();
    rows_.emplace_back(row.begin(), row.end());
  }

  LoadSamples Samples(size_t most) const {
    EPSIM_CHECK(!rows_.empty());
    const size_t group = std::max<size_t>(rows_.size() / most, 1), samples = std::min(rows_.size() / group, most);
    const size_t experts = rows_.front().size(), first = rows_.size() - samples * group;
    std::vector<double> load(experts * samples);
    for (size_t row = first; row < rows_.size(); ++row) {
      const size_t sample = (row - first) / group;
      for (size_t expert = 0; expert < experts; ++expert) load[expert * samples + sample] += rows_[row][expert];
    }
    return LoadSamples(static_cast<int>(experts), std::move(load));
  }

 private:
  std::deque<std::vector<float>> rows_;  // [rows][experts], oldest first.
};

class FlashlbPlacementPolicy : public PlacementPolicy {
 public:
  FlashlbPlacementPolicy(const FlashlbPlacement& config, const PlacementShape& shape)
      : config_(config), shape_(shape), layers_(shape.layers) {}

  absl::StatusOr<Placement> Place(const PlacementRequest& request) override {
    PlacementChange change(shape_, request);
    for (Layer layer : change.layers()) {
      LayerState& state = layers_[Index(layer)];
      for (int row = 0; row < request.window.rows; ++row) {
        state.window.Add(request.window.of(row, layer), config_.max_observation_window());
      }
      PlanLayer(layer, &state, &change);
    }
    PlacementChange::Result result = std::move(change).Finish();
    change_order_ = std::move(result.order);
    return std::move(result.placement);
  }

  std::vector<Layer> change_order() const override { return change_order_; }

 private:
  struct LayerState {
    LayerWindow window;
    std::optional<double> promised;  // Average over peak of the last plan.
  };

  void PlanLayer(Layer layer, LayerState* state, PlacementChange* change) const {
    const LoadSamples samples = state->window.Samples(config_.sample_size());
    const absl::Span<const LogicalExpert> before = change->start().experts_of_slots(layer);
    const bool forced = change->HasEmptySlots(layer);
    const double current = 1 / PeakToAverage(samples, before, shape_.ranks);
    if (!forced && state->promised.has_value() && current >= config_.update_threshold_ratio() * *state->promised &&
        current >= config_.update_threshold_value()) {
      return;
    }
    const ReplicaSearch search{.z = config_.z_score(),
                               .depth = static_cast<int>(config_.tree_depth()),
                               .width = static_cast<int>(config_.tree_width())};
    std::vector<LogicalExpert> after = SearchReplicas(samples, shape_.slots, shape_.ranks, search).experts_of_slots;
    MatchRanks(before, shape_.slots_per_rank(), absl::MakeSpan(after));
    const double promised = 1 / PeakToAverage(samples, after, shape_.ranks);
    if (!forced && promised <= current) return;
    state->promised = promised;
    change->Change(layer, std::move(after), current - promised);
  }

  const FlashlbPlacement config_;
  const PlacementShape shape_;
  std::vector<LayerState> layers_;
  std::vector<Layer> change_order_;
};

// 1 to `most`.
absl::Status CheckCount(const char* what, uint32_t value, uint32_t most) {
  if (value >= 1 && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("flashlb: ", what, ": ", value, " is not within 1 to ", most));
}

absl::Status CheckFraction(const char* what, double value) {
  if (value >= 0 && value <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("flashlb: ", what, ": ", value, " is not within 0 to 1"));
}

}  // namespace

absl::StatusOr<FlashlbPlacement> CompleteFlashlbPlacement(const FlashlbPlacement& config, const PlacementShape& shape) {
  constexpr int kMost = 4096, kSmallWorld = 32;
  FlashlbPlacement complete = config;
  if (!config.has_z_score()) complete.set_z_score(0.674);
  if (!config.has_tree_depth()) complete.set_tree_depth(4);
  if (!config.has_tree_width()) complete.set_tree_width(8);
  if (!config.has_sample_size()) complete.set_sample_size(64);
  if (!config.has_max_observation_window()) complete.set_max_observation_window(2000);
  if (!config.has_update_threshold_ratio()) {
    complete.set_update_threshold_ratio(shape.ranks < kSmallWorld ? 0.95 : 0.9);
  }
  if (!config.has_update_threshold_value()) {
    complete.set_update_threshold_value(shape.ranks < kSmallWorld ? 0.9 : 0.85);
  }
  if (!std::isfinite(complete.z_score()) || complete.z_score() < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("flashlb: z_score: ", complete.z_score(), " is not a finite number >= 0"));
  }
  RETURN_IF_ERROR(CheckCount("tree_depth", complete.tree_depth(), 4096));
  RETURN_IF_ERROR(CheckCount("sample_size", complete.sample_size(), 65536));
  RETURN_IF_ERROR(CheckCount("max_observation_window", complete.max_observation_window(), 1 << 20));
  if (complete.tree_width() > 65536) {
    return absl::InvalidArgumentError(
        absl::StrCat("flashlb: tree_width: ", complete.tree_width(), " is more than 65536"));
  }
  RETURN_IF_ERROR(CheckFraction("update_threshold_ratio", complete.update_threshold_ratio()));
  RETURN_IF_ERROR(CheckFraction("update_threshold_value", complete.update_threshold_value()));
  for (const auto& [what, value] : {std::pair("experts", shape.experts), {"ranks", shape.ranks}}) {
    if (value > kMost) {
      return absl::InvalidArgumentError(
          absl::StrCat("flashlb: ", what, ": ", value, " are more than ", kMost, ", the most that fit"));
    }
  }
  return complete;
}

absl::StatusOr<std::unique_ptr<PlacementPolicy>> NewFlashlbPlacement(const FlashlbPlacement& config,
                                                                     const PlacementShape& shape) {
  ASSIGN_OR_RETURN(FlashlbPlacement complete, CompleteFlashlbPlacement(config, shape));
  return std::make_unique<FlashlbPlacementPolicy>(complete, shape);
}

}  // namespace epsim
