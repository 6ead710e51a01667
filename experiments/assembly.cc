#include "experiments/assembly.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "engine/status_macros.h"
#include "models/backends/backend.h"
#include "models/schedule/schedule_config.h"
#include "platforms/network/simgrid.h"

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

// The most tokens of one rank in one exchange, as far as the configuration bounds them; else what engines make their
// buffers for by default.
int MostTokensPerRank(const Experiment& experiment) {
  constexpr uint32_t kDefault = 8192;
  const WorkloadConfig& workload = experiment.workload();
  uint32_t tokens = kDefault;
  if (workload.has_continuous()) tokens = workload.continuous().max_tokens_per_rank();
  if (workload.has_lock_step()) tokens = workload.lock_step().max_tokens_per_rank();
  if (const uint32_t chunk = experiment.schedule().max_tokens(); chunk > 0) {
    tokens = std::min(tokens, (chunk + experiment.ranks() - 1) / experiment.ranks());
  }
  return static_cast<int>(tokens);
}

// Whether the chosen backend can run the experiment.  Adds what it does not say.
absl::Status CheckBackend(const ResolvedExperiment& resolved, const Communication& communication,
                          std::vector<std::string>* notes) {
  const Experiment& experiment = resolved.experiment();
  if (experiment.backend().empty()) return absl::OkStatus();
  const Precision& precision = experiment.costs().precision();
  ASSIGN_OR_RETURN(const Backend backend, FindBackend(experiment.backend()));
  RETURN_IF_ERROR(CanImplement(backend, precision, resolved.manifest.platform().gpu(), resolved.model()));
  if (precision.dispatch() != BF16 && !FindQuantisation(backend, precision)->quantised_dispatch()) {
    return absl::InvalidArgumentError(absl::StrCat("precision.dispatch: ", NumberType_Name(precision.dispatch()),
                                                   ", but ", experiment.backend(),
                                                   " quantises tokens when they have arrived; ", "BF16 would do"));
  }
  RETURN_IF_ERROR(CanExchangeBy(backend, communication.name()));
  RETURN_IF_ERROR(CanBeScheduled(backend, experiment.schedule()));
  if (!GoesByLoad(experiment.placement())) return absl::OkStatus();
  RETURN_IF_ERROR(CanRebalance(backend, precision));
  if (FindQuantisation(backend, precision)->eplb() == EPLB_NOT_VERIFIED) {
    notes->push_back(absl::StrCat(experiment.backend(), " does not say whether it moves experts in this precision"));
  }
  return absl::OkStatus();
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
  ASSIGN_OR_RETURN(parts->communication, NewCommunication(experiment.communication(),
                                                          {.cluster = &parts->cluster,
                                                           .model = resolved.model(),
                                                           .precision = experiment.costs().precision(),
                                                           .slots = parts->shape.slots,
                                                           .max_tokens_per_rank = MostTokensPerRank(experiment)}));
  std::optional<ExchangeCost> exchange;
  if (GoesByCoActivation(experiment.placement())) {
    exchange = LearnExchangeCost(parts->cluster, *parts->communication);
    if (!exchange.has_value()) {
      parts->notes.push_back("topology_aware: the exchange is the same under every placement; expert time decides");
    }
  }
  parts->cost_view = std::make_unique<ModelCostView>(*parts->costs, std::move(exchange));
  RETURN_IF_ERROR(CheckSchedule(experiment.schedule(), *parts->communication, resolved.model(), platform.gpu()));
  RETURN_IF_ERROR(CheckBackend(resolved, *parts->communication, &parts->notes));
  ASSIGN_OR_RETURN(parts->network, NewNetwork(experiment.network(), parts->cluster, &parts->queue));
  if (experiment.network().has_simgrid()) {
    const int flows = parts->shape.ranks * (parts->shape.ranks - 1);
    parts->notes.push_back(absl::StrCat(
        "SimGrid takes about ",
        absl::FormatDuration(absl::Ceil(absl::Seconds(EstimatedSecondsPerPhase(flows)), absl::Microseconds(10))),
        " of real time for each exchange of ", flows, " flows, of which a step has ", 2 * parts->shape.layers));
  }
  if (experiment.schedule().has_fused() && experiment.backend().empty()) {
    parts->notes.push_back(
        "fused schedule without a backend: nothing says that an engine has such a kernel for this GPU; links give all "
        "of their bandwidth");
  }
  if (experiment.schedule().mtp_runs() > 0) {
    parts->notes.push_back("prediction layers route as the last MoE layer: the trace has no routing of theirs");
  }
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
