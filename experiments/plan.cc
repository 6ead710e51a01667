#include "experiments/plan.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "models/routing/co_activation_recorder.h"
#include "policies/placement/contiguous_placement.h"

namespace epsim {
namespace {

absl::Status Skip(StepSource& source, int64_t steps, const StopToken& stop) {
  for (int64_t i = 0; i < steps; ++i) {
    RETURN_IF_ERROR(stop.Check());
    RETURN_IF_ERROR(source.Next(SimTime{}).status());
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Plan> MakePlan(const Experiment& experiment, Assembly& parts,
                              const std::function<absl::StatusOr<std::unique_ptr<StepSource>>()>& new_source,
                              const SimulationOptions& options) {
  Plan plan;
  ASSIGN_OR_RETURN(plan.scored, new_source());
  const int64_t steps = plan.scored->total_steps().value_or(0);
  const double fraction = experiment.planning().fraction();
  plan.left_out_steps = static_cast<int64_t>(std::ceil(fraction * static_cast<double>(steps) - 1e-9));
  plan.scored_steps = steps - plan.left_out_steps;
  if (plan.scored_steps <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("planning.fraction ", fraction, " leaves none of the ", steps,
                                                   " steps to score (", plan.scored->description(), ")"));
  }
  CoActivationRecorder recorder(experiment.seed());
  CoActivationRecorder* const to_record = GoesByCoActivation(experiment.placement()) ? &recorder : nullptr;
  const auto record = [&](StepSource& source, int64_t count) {
    return RecordLoad(source, count, parts.shape.layers, parts.shape.experts,
                      static_cast<int>(experiment.planning().max_rows()), options, to_record);
  };
  RecordedLoad load;
  if (experiment.planning().has_hindsight()) {
    ASSIGN_OR_RETURN(const auto seen, new_source());
    RETURN_IF_ERROR(Skip(*seen, plan.left_out_steps, options.stop));
    ASSIGN_OR_RETURN(load, record(*seen, plan.scored_steps));
    RETURN_IF_ERROR(Skip(*plan.scored, plan.left_out_steps, options.stop));
  } else {
    ASSIGN_OR_RETURN(load, record(*plan.scored, plan.left_out_steps));
  }
  plan.seen_steps = load.steps;
  const CoActivation co_activation = recorder.view();
  RandomStream random(experiment.seed(), "placement");
  PlacementRequest request;
  request.window = load.window;
  request.cost = parts.cost_view.get();
  if (co_activation.tokens > 0) request.co_activation = &co_activation;
  request.random = &random;
  if (load.steps == 0) {  // As a server starts.
    ASSIGN_OR_RETURN(plan.placement, NewContiguousPlacement(parts.shape)->Place(request));
  } else {
    ASSIGN_OR_RETURN(plan.placement, parts.placement_policy->Place(request));
  }
  return plan;
}

}  // namespace epsim
