// Steps that a test makes by hand, and experts whose time is easy to add up.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tests/models/simulation/forward_pass_fixture.h"
#include "traces/workload/step_source.h"

namespace epsim {

// The batches it is given, one after the other.
class GivenSteps : public StepSource {
 public:
  explicit GivenSteps(std::vector<StepBatch> batches) : batches_(std::move(batches)) {}

  absl::StatusOr<const StepBatch*> Next(SimTime) override {
    return next_ < batches_.size() ? &batches_[next_++] : nullptr;
  }
  std::optional<int64_t> total_steps() const override { return static_cast<int64_t>(batches_.size()); }
  std::string description() const override { return "given"; }
  bool resampled() const override { return false; }

 private:
  const std::vector<StepBatch> batches_;
  size_t next_ = 0;
};

// A microsecond a token-expert pair, times its scale.
class CostsByPair : public ConstantCosts {
 public:
  Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const override {
    double us = 0;
    for (size_t slot = 0; slot < tokens_per_slot.size(); ++slot) {
      us += tokens_per_slot[slot] * (scale.empty() ? 1 : scale[slot]);
    }
    return {RoundUpPicoseconds(us * 1e6)};
  }
};

}  // namespace epsim
