// The balancedness of a whole run: tokens of every rank summed over the steps, as published figures are computed.
#pragma once

#include <cstdint>
#include <vector>

#include "models/simulation/observer.h"
#include "policies/placement/placement.h"

namespace epsim {

class AggregateLoad : public Observer {
 public:
  explicit AggregateLoad(const PlacementShape& shape);

  void OnStage(const StageRecord&) override {}
  void OnStepEnd(const StepRecord& step) override;

  // Mean over ranks / max over ranks, mean over layers.
  double Balancedness() const;

 private:
  const PlacementShape shape_;
  std::vector<int64_t> tokens_;  // [layers, ranks]
};

}  // namespace epsim
