// Observers watch a replay and make what the user sees of it: the summary, the table of steps, the timeline.
#pragma once

#include "absl/types/span.h"
#include "engine/units.h"
#include "models/routing/token_routing.h"
#include "models/schedule/stage.h"
#include "models/simulation/step_routing.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// A step that has ended.
struct StepRecord {
  SimTime start, finish;
  const StepBatch* batch;
  absl::Span<const RoutedLayer> layers;    // [MoE layers]: the whole batch, all its pieces together.
  absl::Span<const Duration> expert_time;  // [MoE layers, ranks]: likewise, of one run of the layer.
  // [MoE layers]; empty unless a policy may route tokens anew: `batch` is then as routed.
  absl::Span<const LayerRouting> routing = {};
};

class Observer {
 public:
  virtual ~Observer() = default;
  // In the order of the program, each stage once, when nothing can change it any more.
  virtual void OnStage(const StageRecord& stage) = 0;
  // Likewise, among the stages.
  virtual void OnHook(const HookRecord&) {}
  // After the last stage of the step.
  virtual void OnStepEnd(const StepRecord& step) = 0;
};

}  // namespace epsim
