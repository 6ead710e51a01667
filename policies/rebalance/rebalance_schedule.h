// When a plan is made: counts the steps, watches the utilisation, and deals the layers of online rebalancing over them.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "engine/ids.h"
#include "policies/rebalance/rebalance.pb.h"

namespace epsim {

class RebalanceSchedule {
 public:
  // REQUIRES: `config` is complete (rebalance_config.h).
  RebalanceSchedule(const RebalanceConfig& config, int layers);

  // A step has ended, of this utilisation (Utilization, below).
  void StepEnded(double utilization);

  // Whether all layers are to be planned before the next step; never under `none` and
  // `online`.
  bool due() const { return due_after_ > 0 ? steps_ >= due_after_ : false; }
  // The mean utilisation of the last steps (1000 at most), where it is above the threshold and the rebalance that is
  // due is to be skipped.
  std::optional<double> TooWellBalanced() const;
  // The rebalance that was due has been skipped, or its plan made: the interval begins.
  void Planned();
  // All of its layers are in force: under `chunked` the interval begins here.
  void Settled();
  int64_t steps() const { return steps_; }  // Since the interval began.

  // The layers that the step that comes plans, ascending; none but under `online`.
  std::vector<Layer> Turn() const;

 private:
  static constexpr size_t kUtilizationSteps = 1000;  // SGLang's longest window.

  const RebalanceConfig config_;
  const int layers_;
  int64_t steps_ = 0;      // Since the interval began.
  int64_t due_after_ = 0;  // 0: never.
  int64_t all_steps_ = 0;
  std::deque<double> utilization_;
  double sum_ = 0;
};

// The mean over layers of (mean tokens of a rank + 1e-5) / (most tokens of a rank + 1e-5), in float64.  SGLang computes
// it in float32.  `tokens_of_rank`: [layers, ranks].
double Utilization(absl::Span<const int64_t> tokens_of_rank, int ranks);

}  // namespace epsim
