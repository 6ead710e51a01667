// Which communication strategies ran in a replay, and the most that any of them took.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "models/communication/communication.h"
#include "models/simulation/observer.h"

namespace epsim {

class StrategyUse : public Observer {
 public:
  explicit StrategyUse(const Communication& communication)
      : communication_(communication), footprint_(communication.footprint()) {}

  void OnStage(const StageRecord&) override {}
  void OnStepEnd(const StepRecord&) override {
    ++steps_;
    ++steps_of_[communication_.name()];
    const CommunicationFootprint footprint = communication_.footprint();
    footprint_.sms = std::max(footprint_.sms, footprint.sms);
    footprint_.buffers = std::max(footprint_.buffers, footprint.buffers);
    footprint_.statistics_ride_along = footprint.statistics_ride_along;
  }

  // "deepep_normal", or "deepep_low_latency 80 %, deepep_normal 20 %".
  std::string Text() const {
    if (steps_of_.size() < 2) return communication_.name();
    return absl::StrJoin(steps_of_, ", ", [this](std::string* out, const auto& strategy) {
      absl::StrAppendFormat(out, "%s %.0f %%", strategy.first, 100.0 * static_cast<double>(strategy.second) / steps_);
    });
  }
  const CommunicationFootprint& footprint() const { return footprint_; }

 private:
  const Communication& communication_;
  CommunicationFootprint footprint_;
  std::map<std::string, int64_t> steps_of_;
  int64_t steps_ = 0;
};

}  // namespace epsim
