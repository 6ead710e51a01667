#include "experiments/assembly.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"
#include "models/backends/backend.h"
#include "models/costs/roofline_kernel.h"
#include "models/schedule/schedule_config.h"
#include "platforms/network/simgrid.h"
#include "policies/placement/survivors_placement.h"

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

// To decide, and before it, where the choice goes by them, to gather the counts of all ranks: each sends 4 bytes an
// expert to each other one, as fast as the links allow.
Duration ReplicaPlanningTime(const ReplicaChoice& choice, const PlacementShape& shape, const Cluster& cluster) {
  const ReplicaPlanning planning = choice.planning();
  if (!planning.gathers_counts) return planning.time;
  Exchange exchange;
  ClearExchange(shape.ranks, &exchange);
  for (int s = 0; s < shape.ranks; ++s) {
    for (int d = 0; d < shape.ranks; ++d) {
      if (s != d) exchange.traffic.bytes[static_cast<size_t>(s) * shape.ranks + d] = int64_t{4} * shape.experts;
    }
  }
  return planning.time + LoneExchangeTime(cluster, exchange);
}

// Whether weights can come from where the experiment has them come from.
absl::Status CheckMigration(const RebalanceConfig& rebalance, const PlatformSpec& platform) {
  if (rebalance.has_none() || rebalance.migration().source() != MigrationConfig::HOST || platform.has_pcie()) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "rebalance.migration.source: HOST, but the platform states no PCIe between GPU and host; PEER would do");
}

// Whether the ranks that fail are there, and those that are left can hold all experts at any time.
absl::Status CheckElastic(const ElasticConfig& elastic, const PlacementShape& shape, const PlatformSpec& platform) {
  if (elastic.failures().empty()) return absl::OkStatus();
  if (!platform.has_pcie()) {
    return absl::InvalidArgumentError(
        "elastic.failures: lost experts are loaded from host memory, but the platform states no PCIe to it");
  }
  // (when, index) of every change, a return after a failure at the same time.
  std::vector<std::tuple<Duration, int, const Failure*>> changes;
  for (const Failure& failure : elastic.failures()) {
    const int count = failure.has_node() ? shape.nodes : shape.ranks;
    const uint32_t index = failure.has_node() ? failure.node() : failure.rank();
    if (index >= static_cast<uint32_t>(count)) {
      return absl::InvalidArgumentError(absl::StrCat("elastic.failures: ", failure.has_node() ? "node " : "rank ",
                                                     index, " fails, but there are ", count));
    }
    ASSIGN_OR_RETURN(const Duration at, ParseDuration(failure.at()));
    changes.emplace_back(at, 0, &failure);
    if (failure.returns_after().empty()) continue;
    ASSIGN_OR_RETURN(const Duration away, ParseDuration(failure.returns_after()));
    changes.emplace_back(at + away, 1, &failure);
  }
  std::sort(changes.begin(), changes.end());
  std::vector<int> away(shape.ranks);
  for (const auto& [when, returns, failure] : changes) {
    const int of_node = shape.ranks / shape.nodes;
    const int first = static_cast<int>(failure->has_node() ? failure->node() * of_node : failure->rank());
    for (int rank = first; rank < first + (failure->has_node() ? of_node : 1); ++rank) away[rank] += returns ? -1 : 1;
    std::vector<Rank> failed;
    for (int rank = 0; rank < shape.ranks; ++rank) {
      if (away[rank] > 0) failed.push_back(Rank(rank));
    }
    if (absl::Status status = SurvivorShape(shape, failed).status(); !status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("elastic.failures: ", status.message(), "; see redundant_slots_per_rank"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<Assembly>> AssembleParts(const ResolvedExperiment& resolved,
                                                        std::shared_ptr<WorkTimes> times) {
  const Experiment& experiment = resolved.experiment();
  const PlatformSpec& platform = resolved.manifest.platform();
  auto parts = std::make_unique<Assembly>();
  ASSIGN_OR_RETURN(parts->cluster,
                   Cluster::Create(platform, static_cast<int>(experiment.ranks()), experiment.overrides()));
  parts->shape = ShapeOf(resolved, parts->cluster);
  ASSIGN_OR_RETURN(parts->placement_policy, NewPlacementPolicy(experiment.placement(), parts->shape));
  ASSIGN_OR_RETURN(parts->replica_choice, NewReplicaChoice(experiment.replica_choice()));
  ASSIGN_OR_RETURN(parts->costs, NewCostModel(experiment.costs(), resolved.model(), platform.gpu(), std::move(times)));
  ASSIGN_OR_RETURN(parts->expert_cost_scale,
                   NewExpertCostScale(experiment.costs().expert_cost_scale(), parts->shape.layers, parts->shape.experts,
                                      experiment.seed()));
  if (parts->expert_cost_scale != nullptr) {
    const double spread = experiment.costs().expert_cost_scale().spread();
    parts->notes.push_back(spread > 0 ? absl::StrCat("experts of unequal cost: drawn log-normal with spread ", spread)
                                      : "experts of unequal cost: as costs.expert_cost_scale says");
  }
  ASSIGN_OR_RETURN(parts->communication, NewCommunication(experiment.communication(),
                                                          {.cluster = &parts->cluster,
                                                           .model = resolved.model(),
                                                           .precision = experiment.costs().precision(),
                                                           .slots = parts->shape.slots,
                                                           .max_tokens_per_rank = MostTokensPerRank(experiment)}));
  parts->router_overhead = ReplicaPlanningTime(*parts->replica_choice, parts->shape, parts->cluster);
  if (parts->router_overhead > Duration{}) {
    parts->notes.push_back(absl::StrFormat("choosing replicas adds %.1f us to each call of a router",
                                           Microseconds(parts->router_overhead)));
  }
  RETURN_IF_ERROR(CheckMigration(experiment.rebalance(), platform));
  RETURN_IF_ERROR(CheckElastic(experiment.elastic(), parts->shape, platform));
  ASSIGN_OR_RETURN(const BytesPerSecond memory_bandwidth, ParseHardwareBandwidth(platform.gpu().memory_bandwidth()));
  ASSIGN_OR_RETURN(const RooflineConfig roofline,
                   CompleteRooflineConfig(RooflineOf(experiment.costs()), platform.gpu(), nullptr));
  parts->copy_rate =
      BytesPerSecond(std::llround(static_cast<double>(memory_bandwidth.count()) * roofline.gemm().memory_efficiency()));
  std::optional<ExchangeCost> exchange;
  if (GoesByCoActivation(experiment.placement())) {
    exchange = LearnExchangeCost(parts->cluster, *parts->communication);
    if (!exchange.has_value()) {
      parts->notes.push_back("topology_aware: the exchange is the same under every placement; expert time decides");
    }
  }
  parts->cost_view =
      std::make_unique<ModelCostView>(*parts->costs, parts->expert_cost_scale.get(), std::move(exchange));
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

absl::StatusOr<std::unique_ptr<Assembly>> Assemble(const ResolvedExperiment& resolved,
                                                   std::shared_ptr<WorkTimes> times) {
  absl::StatusOr<std::unique_ptr<Assembly>> parts = AssembleParts(resolved, std::move(times));
  if (parts.ok()) return parts;
  return absl::Status(parts.status().code(),
                      absl::StrCat(resolved.manifest.inputs(0).path(), ": ", parts.status().message()));
}

}  // namespace epsim
