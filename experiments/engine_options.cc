#include "experiments/engine_options.h"

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "engine/status_macros.h"
#include "google/protobuf/descriptor.h"

namespace epsim {
namespace {

absl::Status Refuse(absl::string_view option, absl::string_view value, absl::Span<const char* const> taken) {
  return absl::InvalidArgumentError(
      absl::StrCat("engine.", option, ": \"", value, "\" is not one of ", absl::StrJoin(taken, ", ")));
}

// The fields that the options decide must not be set beside them.
absl::Status CheckUnset(const Experiment& experiment, absl::Span<const char* const> fields) {
  for (const char* name : fields) {
    const auto* const field = Experiment::descriptor()->FindFieldByName(name);
    if (experiment.GetReflection()->HasField(experiment, field)) {
      return absl::InvalidArgumentError(
          absl::StrCat("engine: the engine's options decide `", name, "`, which is set as well; one of the two would do"));
    }
  }
  return absl::OkStatus();
}

// `slots` of a layer over the experiment's ranks, as slots a rank beyond the experts'.
absl::Status SetSlots(absl::string_view option, int64_t slots, int experts, Experiment* experiment) {
  const int64_t ranks = experiment->ranks();
  if (ranks == 0) return absl::OkStatus();  // Said elsewhere.
  const int64_t least = (experts + ranks - 1) / ranks;
  if (slots % ranks != 0 || slots / ranks < least) {
    const int64_t fits = std::max(least, (slots + ranks - 1) / ranks) * ranks;
    return absl::InvalidArgumentError(absl::StrCat("engine.", option, ": ", slots, " slots for ", experts,
                                                   " experts on ", ranks, " ranks; ", fits, " slots, ", fits - experts,
                                                   " of them redundant, would fit"));
  }
  experiment->set_redundant_slots_per_rank(static_cast<uint32_t>(slots / ranks - least));
  return absl::OkStatus();
}

absl::Status ApplySglang(const SglangOptions& options, int experts, Experiment* experiment) {
  RETURN_IF_ERROR(SetSlots("sglang.ep_num_redundant_experts", int64_t{experts} + options.ep_num_redundant_experts(),
                           experts, experiment));
  const std::string& dispatch = options.ep_dispatch_algorithm();
  if (dispatch.empty() || dispatch == "static") {
    experiment->mutable_replica_choice()->mutable_static_nearest();
  } else if (dispatch == "dynamic") {
    experiment->mutable_replica_choice()->mutable_dynamic();
  } else {
    return Refuse("sglang.ep_dispatch_algorithm", dispatch, {"static", "dynamic"});
  }
  if (options.moe_a2a_backend() == "deepep") {
    RETURN_IF_ERROR(CheckUnset(*experiment, {"communication"}));
    CommunicationConfig& communication = *experiment->mutable_communication();
    if (options.deepep_mode().empty() || options.deepep_mode() == "auto") {
      communication.mutable_automatic()->set_order(AutomaticCommunication::SGLANG);
    } else if (options.deepep_mode() == "normal") {
      communication.mutable_deepep_normal();
    } else if (options.deepep_mode() == "low_latency") {
      communication.mutable_deepep_low_latency();
    } else {
      return Refuse("sglang.deepep_mode", options.deepep_mode(), {"auto", "normal", "low_latency"});
    }
  } else if (!options.moe_a2a_backend().empty() && options.moe_a2a_backend() != "none") {
    return Refuse("sglang.moe_a2a_backend", options.moe_a2a_backend(), {"none", "deepep"});
  }
  if (!options.enable_eplb()) {
    experiment->mutable_placement()->mutable_contiguous();
    return absl::OkStatus();
  }

  PlacementPolicyConfig& placement = *experiment->mutable_placement();
  const std::string& algorithm = options.eplb_algorithm();
  if (algorithm.empty() || algorithm == "auto") {
    placement.mutable_eplb()->set_mode(EplbPlacement::AUTO);
  } else if (algorithm == "deepseek") {
    placement.mutable_eplb()->set_mode(EplbPlacement::GLOBAL);
  } else if (algorithm == "deepseek_hierarchical") {
    placement.mutable_eplb()->set_mode(EplbPlacement::HIERARCHICAL);
  } else if (algorithm == "deepseek_vec") {
    placement.mutable_eplb_vec()->set_mode(EplbPlacement::GLOBAL);
  } else if (algorithm == "deepseek_vec_hierarchical") {
    placement.mutable_eplb_vec()->set_mode(EplbPlacement::HIERARCHICAL);
  } else if (algorithm == "elasticity_aware") {
    placement.mutable_elasticity_aware();
  } else if (algorithm == "compute_aware") {
    placement.mutable_compute_aware();
  } else if (algorithm == "compute_aware_hierarchical") {
    placement.mutable_compute_aware_hierarchical();
  } else {
    return Refuse("sglang.eplb_algorithm", algorithm,
                  {"auto", "deepseek", "deepseek_hierarchical", "deepseek_vec", "deepseek_vec_hierarchical",
                   "elasticity_aware", "compute_aware", "compute_aware_hierarchical"});
  }
  experiment->mutable_planning()->mutable_cold();

  RebalanceConfig& rebalance = *experiment->mutable_rebalance();
  if (options.eplb_rebalance_layers_per_chunk() > 0) {
    rebalance.mutable_chunked()->set_layers_per_chunk(options.eplb_rebalance_layers_per_chunk());
  } else {
    rebalance.mutable_blocking();
  }
  const uint32_t interval =
      options.eplb_rebalance_num_iterations() > 0 ? options.eplb_rebalance_num_iterations() : 1000;
  rebalance.set_interval_steps(interval);
  const uint32_t buffer = options.expert_distribution_recorder_buffer_size();
  if (buffer > interval) {
    return absl::InvalidArgumentError(absl::StrCat("engine.sglang.expert_distribution_recorder_buffer_size: ", buffer,
                                                   " is more than eplb_rebalance_num_iterations, ", interval));
  }
  LoadStatisticsConfig& statistics = *rebalance.mutable_statistics();
  statistics.mutable_window()->set_steps(buffer > 0 ? buffer : interval);
  statistics.set_attribution(LoadStatisticsConfig::AT_PLANNING);
  statistics.set_cleared_by_planning(true);
  const std::string& mode = options.expert_distribution_recorder_mode();
  if (mode == "stat_approx") {
    statistics.set_counts(LoadStatisticsConfig::ALIGNED);
  } else if (!mode.empty() && mode != "stat") {
    return Refuse("sglang.expert_distribution_recorder_mode", mode, {"stat", "stat_approx"});
  }
  rebalance.set_min_utilization_threshold(options.eplb_min_rebalancing_utilization_threshold());
  return absl::OkStatus();
}

absl::Status ApplyVllm(const VllmOptions& options, int experts, Experiment* experiment) {
  const VllmOptions::EplbConfig& eplb = options.eplb_config();
  RETURN_IF_ERROR(SetSlots("vllm.eplb_config.num_redundant_experts", int64_t{experts} + eplb.num_redundant_experts(),
                           experts, experiment));
  if (const std::string& backend = options.all2all_backend(); !backend.empty()) {
    RETURN_IF_ERROR(CheckUnset(*experiment, {"communication"}));
    CommunicationConfig& communication = *experiment->mutable_communication();
    if (backend == "deepep_high_throughput") {
      communication.mutable_deepep_normal();
    } else if (backend == "deepep_low_latency") {
      communication.mutable_deepep_low_latency();
    } else if (backend == "allgather_reducescatter") {
      communication.mutable_allgather_reducescatter();
    } else if (backend == "flashinfer_nvlink_one_sided") {
      communication.mutable_nvlink_one_sided();
    } else if (backend == "flashinfer_nvlink_two_sided") {
      communication.mutable_nvlink_two_sided();
    } else {
      return Refuse("vllm.all2all_backend", backend,
                    {"deepep_high_throughput", "deepep_low_latency", "allgather_reducescatter",
                     "flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided"});
    }
  }
  PlacementPolicyConfig& placement = *experiment->mutable_placement();
  experiment->mutable_replica_choice()->mutable_dynamic();
  if (!options.enable_eplb()) {
    const std::string& strategy = options.expert_placement_strategy();
    if (strategy.empty() || strategy == "linear") {
      placement.mutable_contiguous();
    } else if (strategy == "round_robin") {
      placement.mutable_round_robin();
    } else {
      return Refuse("vllm.expert_placement_strategy", strategy, {"linear", "round_robin"});
    }
    return absl::OkStatus();
  }
  if (eplb.policy().empty() || eplb.policy() == "default") {
    placement.mutable_vllm();
  } else if (eplb.policy() == "random") {
    placement.mutable_random();
  } else if (eplb.policy() == "swift") {
    placement.mutable_swift();
  } else if (eplb.policy() == "flashlb") {
    placement.mutable_flashlb();
  } else {
    return Refuse("vllm.eplb_config.policy", eplb.policy(), {"default", "random", "swift", "flashlb"});
  }
  experiment->mutable_planning()->mutable_cold();
  RebalanceConfig& rebalance = *experiment->mutable_rebalance();
  if (!eplb.has_use_async() || eplb.use_async()) {
    rebalance.mutable_async_layer();
  } else {
    rebalance.mutable_blocking();
  }
  const uint32_t interval = eplb.step_interval() > 0 ? eplb.step_interval() : 3000;
  rebalance.set_interval_steps(interval);
  rebalance.set_first_after_steps(interval / 4);
  LoadStatisticsConfig& statistics = *rebalance.mutable_statistics();
  statistics.mutable_window()->set_steps(eplb.window_size() > 0 ? eplb.window_size() : 1000);
  statistics.set_attribution(LoadStatisticsConfig::AT_PLANNING);
  return absl::OkStatus();
}

absl::Status ApplyTensorrtLlm(const TensorrtLlmOptions& options, int experts, Experiment* experiment) {
  RETURN_IF_ERROR(SetSlots("tensorrt_llm.num_slots", options.num_slots() > 0 ? options.num_slots() : experts, experts,
                           experiment));
  experiment->mutable_placement()->mutable_trtllm();
  experiment->mutable_replica_choice()->mutable_round_robin();
  if (options.layer_updates_per_iter() == 0) return absl::OkStatus();
  experiment->mutable_planning()->mutable_cold();
  RebalanceConfig& rebalance = *experiment->mutable_rebalance();
  rebalance.mutable_online()->set_layer_updates_per_iter(options.layer_updates_per_iter());
  rebalance.mutable_statistics()->mutable_decay();
  rebalance.mutable_statistics()->set_cleared_by_planning(true);
  return absl::OkStatus();
}

}  // namespace

absl::Status ApplyEngineOptions(int experts, Experiment* experiment) {
  if (!experiment->has_engine()) return absl::OkStatus();
  RETURN_IF_ERROR(
      CheckUnset(*experiment, {"placement", "redundant_slots_per_rank", "replica_choice", "rebalance"}));
  if (experiment->planning().plan_case() != PlanningConfig::PLAN_NOT_SET) {
    return absl::InvalidArgumentError(
        "engine: the engine's options decide how placing starts; without planning.plan it would do");
  }
  const EngineOptions engine = experiment->engine();
  switch (engine.engine_case()) {
    case EngineOptions::kSglang:
      return ApplySglang(engine.sglang(), experts, experiment);
    case EngineOptions::kVllm:
      return ApplyVllm(engine.vllm(), experts, experiment);
    case EngineOptions::kTensorrtLlm:
      return ApplyTensorrtLlm(engine.tensorrt_llm(), experts, experiment);
    case EngineOptions::ENGINE_NOT_SET:
      return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace epsim
