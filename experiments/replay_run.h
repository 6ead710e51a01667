// One alternative of a replay: its parts, what watches them, and its report.  Alternatives that replay the same steps
// run side by side (run.h).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/random_stream.h"
#include "experiments/aggregate_load.h"
#include "experiments/assembly.h"
#include "experiments/plan.h"
#include "experiments/report_folder.h"
#include "experiments/routing_report.h"
#include "experiments/run_report.h"
#include "experiments/setup.h"
#include "experiments/steps_csv.h"
#include "experiments/strategy_use.h"
#include "experiments/summary.h"
#include "experiments/timeline.h"
#include "models/routing/co_activation_recorder.h"
#include "models/routing/placed_routing.h"
#include "models/simulation/simulation.h"
#include "nlohmann/json.hpp"
#include "policies/rebalance/expert_profiler.h"

namespace epsim {

// What was replayed.
struct ReplayedSteps {
  std::string trace_path;  // Empty: no trace, but an estimate.
  std::string trace_hash = "none", synthetic, batches;
  bool resampled = false, counts_only = false;
  int64_t trace_tokens = 0, missing_ids = 0;
  nlohmann::ordered_json analytic;  // Of an estimate: what was assumed.
  std::vector<std::string> notes;
};

class ReplayRun {
 public:
  // All checks that need no trace.  `resolved`, and `folder` where there is one, outlive the run.
  // `times`: as Assemble().
  static absl::StatusOr<std::unique_ptr<ReplayRun>> Create(const ResolvedExperiment& resolved, ReportFolder* folder,
                                                           std::shared_ptr<WorkTimes> times);

  const Experiment& experiment() const { return resolved_.experiment(); }
  const Assembly& parts() const { return *parts_; }
  const PlacementShape& shape() const { return parts_->shape; }
  bool hindsight() const { return experiment().planning().has_hindsight(); }

  // Whether the trace holds what the routing policy goes by, and what of it each step has to carry.
  absl::Status CheckTrace(const TraceHeader& header) const;
  StepContents contents() const { return ContentsForRouting(experiment().routing()); }
  // Routes the steps that are planned on; null where tokens go where the trace says.  It goes on with the scored ones,
  // unless the plan has seen these.
  StepRouting* planning_routing() { return hindsight() ? foreseen_.get() : step_routing_.get(); }

  // A step that is planned on; tokens of each logical expert, [layers, experts].
  void Watch(const StepBatch& batch, absl::Span<const int32_t> tokens);
  // Makes the simulation, on a placement planned on `seen` or given.  One of them is to be called, once.
  absl::Status Prepare(const RecordedLoad& seen);
  absl::Status Prepare(Placement placement);
  // REQUIRES: Prepare() has succeeded.
  Simulation* simulation() { return &*simulation_; }

  // Makes the run the bound of `others` (Simulation::SetBoundOf).
  void SetBoundOf(std::vector<const Simulation*> others) {
    is_bound_ = true;
    simulation_->SetBoundOf(std::move(others));
  }

  // After the replay.  Fills the folder, which is left to the caller to commit.
  absl::StatusOr<RunReport> Report(const ReplayedSteps& replayed);

 private:
  ReplayRun(const ResolvedExperiment& resolved, ReportFolder* folder, std::unique_ptr<Assembly> parts);

  std::vector<std::string> Notes(const ReplayedSteps& replayed, const RunFacts& facts) const;

  const ResolvedExperiment& resolved_;
  ReportFolder* const folder_;
  const std::unique_ptr<Assembly> parts_;
  RandomStream rebalance_random_;
  Summary summary_;
  AggregateLoad aggregate_;
  StrategyUse strategies_;
  std::optional<StepsCsv> steps_csv_;
  std::optional<Timeline> timeline_;
  StepMeter meter_;
  // None: the placement policy does not go by it.
  std::optional<ExpertProfiler> profiler_;
  std::optional<CoActivationRecorder> co_activation_;
  std::optional<Placement> as_started_;  // What a server serves on while it is profiled first.
  int64_t seen_steps_ = 0;
  bool is_bound_ = false;
  std::unique_ptr<StepRouting> step_routing_, foreseen_;  // Null: tokens go where the trace says.
  RoutingGain routing_gain_;
  std::optional<PlacedRouting> routing_;
  std::optional<Simulation> simulation_;
};

}  // namespace epsim
