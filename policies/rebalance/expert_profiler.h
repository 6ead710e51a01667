// Measures what each expert costs while a model serves: which steps are profiled, what they have shown, and the
// averages that placement policies decide by.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/ids.h"
#include "engine/units.h"
#include "policies/placement/placement_policy.h"
#include "policies/rebalance/profiler.pb.h"

namespace epsim {

// `config` with every default filled in.  Fails on an overhead that is no time from 0 to 1 s.
absl::StatusOr<ProfilerConfig> CompleteProfilerConfig(const ProfilerConfig& config);

// What has been measured of one expert, or in one go of it.  An invocation is one slot's share of one launch of the
// grouped GEMMs with tokens in it.
struct ExpertSample {
  int64_t tokens = 0, invocations = 0;
  double picoseconds = 0;
};

class ExpertProfiler {
 public:
  // REQUIRES: `config` comes from CompleteProfilerConfig.
  ExpertProfiler(const ProfilerConfig& config, int layers, int experts);

  // Counts a step that is about to run, and says whether it is profiled.
  bool BeginStep();
  // What profiling adds to each layer of the step begun last: the overhead, or 0 where it is not profiled.
  Duration layer_overhead() const { return profiling_ ? overhead_ : Duration{}; }

  // REQUIRES: the step begun last is profiled; `sample` has tokens and invocations, and picoseconds >= 0.
  void Record(Layer layer, LogicalExpert expert, const ExpertSample& sample);
  // The slots of some ranks in one layer, one invocation each; those without tokens were not run.  All [slots].
  void RecordSlots(Layer layer, absl::Span<const LogicalExpert> experts_of_slots,
                   absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> picoseconds_of_slot);

  // As new: nothing measured, warm-up ahead.
  void Reset();

  // All that has been recorded of an expert.
  const ExpertSample& Recorded(Layer layer, LogicalExpert expert) const;
  // Averages in picoseconds: recorded time / recorded tokens, and / recorded invocations.  An expert without samples
  // takes the mean over those experts of its layer that have some; 0 where none has.
  double TimePerToken(Layer layer, LogicalExpert expert) const;
  double TimePerInvocation(Layer layer, LogicalExpert expert) const;
  // TimePerToken of all, until the next call of a non-const member; null where nothing has been recorded.
  const ExpertProfile* Profile();

  // A line an expert, with a heading: what was recorded and its averages in microseconds; those taken from the layer's
  // mean have a "~" before them.
  std::string Table() const;

 private:
  // Averages over those experts of a layer that have samples.
  struct LayerMean {
    double per_token = 0, per_invocation = 0;
  };

  size_t Place(Layer layer, LogicalExpert expert) const;
  LayerMean MeanOf(Layer layer) const;

  const int64_t warm_up_steps_, interval_steps_;
  const Duration overhead_;
  const int layers_, experts_;
  int64_t steps_ = 0;  // Begun.
  bool profiling_ = false;
  bool empty_ = true;
  std::vector<ExpertSample> samples_;   // [layers, experts]
  std::vector<double> time_per_token_;  // [layers, experts], what profile_ shows.
  ExpertProfile profile_;
};

}  // namespace epsim
