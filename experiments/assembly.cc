#include "experiments/assembly.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

// Slots, ranks and nodes of the experiment's placement.
PlacementShape ShapeOf(const ResolvedExperiment& resolved, const Cluster& cluster) {
  const ModelSpec& model = resolved.model();
  const int ranks = cluster.ranks();
  const int experts = static_cast<int>(model.experts());
  const int slots_per_rank =
      (experts + ranks - 1) / ranks + static_cast<int>(resolved.experiment().redundant_slots_per_rank());
  return {.layers = static_cast<int>(model.moe_layers()),
          .experts = experts,
          .slots = slots_per_rank * ranks,
          .ranks = ranks,
          .nodes = cluster.nodes(),
          .expert_groups = std::max(1, static_cast<int>(model.expert_groups()))};
}

absl::StatusOr<std::unique_ptr<Assembly>> AssembleParts(const ResolvedExperiment& resolved) {
  const Experiment& experiment = resolved.experiment();
  const PlatformSpec& platform = resolved.manifest.platform();
  auto parts = std::make_unique<Assembly>();
  ASSIGN_OR_RETURN(parts->cluster,
                   Cluster::Create(platform, static_cast<int>(experiment.ranks()), experiment.overrides()));
  parts->shape = ShapeOf(resolved, parts->cluster);
  ASSIGN_OR_RETURN(parts->placement_policy, NewPlacementPolicy(experiment.placement(), parts->shape));
  ASSIGN_OR_RETURN(parts->replica_choice, NewReplicaChoice(experiment.replica_choice()));
  ASSIGN_OR_RETURN(parts->costs, NewCostModel(experiment.costs(), resolved.model(), platform.gpu()));
  ASSIGN_OR_RETURN(parts->communication,
                   NewCommunication(experiment.communication(), {.cluster = &parts->cluster,
                                                                 .model = resolved.model(),
                                                                 .precision = experiment.costs().precision(),
                                                                 .slots = parts->shape.slots}));
  ASSIGN_OR_RETURN(parts->network, NewNetwork(experiment.network(), parts->cluster, &parts->queue));
  return parts;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Assembly>> Assemble(const ResolvedExperiment& resolved) {
  absl::StatusOr<std::unique_ptr<Assembly>> parts = AssembleParts(resolved);
  if (parts.ok()) return parts;
  return absl::Status(parts.status().code(),
                      absl::StrCat(resolved.manifest.inputs(0).path(), ": ", parts.status().message()));
}

}  // namespace epsim
