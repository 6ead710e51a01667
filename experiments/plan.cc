#include "experiments/plan.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"
#include "policies/placement/contiguous_placement.h"

namespace epsim {

absl::Status SkipSteps(StepSource& source, int64_t steps, const StopToken& stop) {
  for (int64_t i = 0; i < steps; ++i) {
    RETURN_IF_ERROR(stop.Check());
    RETURN_IF_ERROR(source.Next(SimTime{}).status());
  }
  return absl::OkStatus();
}

absl::StatusOr<StepsCut> CutSteps(const PlanningConfig& config, const StepSource& source) {
  const int64_t steps = source.total_steps().value_or(0);
  StepsCut cut;
  cut.left_out = static_cast<int64_t>(std::ceil(config.fraction() * static_cast<double>(steps) - 1e-9));
  cut.scored = steps - cut.left_out;
  if (cut.scored <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("planning.fraction ", config.fraction(), " leaves none of the ",
                                                   steps, " steps to score (", source.description(), ")"));
  }
  return cut;
}

absl::StatusOr<Placement> PlanPlacement(const Experiment& experiment, Assembly& parts, const RecordedLoad& seen,
                                        const ExpertProfile* profile, const CoActivation* co_activation) {
  RandomStream random(experiment.seed(), "placement");
  PlacementRequest request;
  request.window = seen.window;
  request.cost = parts.cost_view.get();
  request.co_activation = co_activation;
  request.random = &random;
  request.profile = profile;
  if (seen.steps == 0) return PlaceContiguously(parts.shape);
  return parts.placement_policy->Place(request);
}

}  // namespace epsim
