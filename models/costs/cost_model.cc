#include "models/costs/cost_model.h"

#include <utility>

#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/calibration/work_times.h"
#include "models/costs/expert_cost_scale.h"
#include "models/costs/measured_cost_model.h"
#include "models/costs/replay_cost_model.h"
#include "models/costs/roofline_cost_model.h"
#include "models/costs/roofline_kernel.h"
#include "models/number_type.h"

namespace epsim {
namespace {

// What expert GEMMs with `weights` take as input where nothing is said.
NumberType MatchingActivations(NumberType weights) { return IsEightBit(weights) || weights == NVFP4 ? weights : BF16; }

}  // namespace

std::string_view Name(CostSource source) {
  switch (source) {
    case CostSource::kRoofline:
      return "roofline";
    case CostSource::kMeasured:
      return "measured";
    case CostSource::kReplay:
      return "replay";
    case CostSource::kNetwork:
      return "network";
    case CostSource::kGiven:
      return "given";
    case CostSource::kExtended:
      return "extended";
  }
  EPSIM_CHECK(!"a known cost source");
  __builtin_unreachable();
}

absl::StatusOr<CostConfig> CompleteCostConfig(const CostConfig& config, const GpuSpec& gpu) {
  RETURN_IF_ERROR(CheckExpertCostScale(config.expert_cost_scale()));
  CostConfig complete = config;
  const auto or_default = [](NumberType type, NumberType fallback) {
    return type == NUMBER_TYPE_DEFAULT ? fallback : type;
  };
  Precision* precision = complete.mutable_precision();
  precision->set_expert_weights(or_default(precision->expert_weights(), BF16));
  precision->set_other_weights(or_default(precision->other_weights(), BF16));
  precision->set_dispatch(or_default(precision->dispatch(), BF16));
  precision->set_kv_cache(or_default(precision->kv_cache(), BF16));
  precision->set_expert_activations(
      or_default(precision->expert_activations(), MatchingActivations(precision->expert_weights())));
  precision->set_combine(or_default(precision->combine(), BF16));
  if (!config.has_permutation()) complete.set_permutation(true);
  switch (config.model_case()) {
    case CostConfig::kRoofline:
    case CostConfig::MODEL_NOT_SET: {
      ASSIGN_OR_RETURN(*complete.mutable_roofline(), CompleteRooflineConfig(config.roofline(), gpu, nullptr));
      break;
    }
    case CostConfig::kMeasured: {
      ASSIGN_OR_RETURN(*complete.mutable_measured(), CompleteMeasuredConfig(config.measured(), gpu));
      break;
    }
    case CostConfig::kReplay: {
      ASSIGN_OR_RETURN(*complete.mutable_replay(), CompleteReplayConfig(config.replay(), gpu));
      break;
    }
  }
  return complete;
}

const RooflineConfig& RooflineOf(const CostConfig& config) {
  switch (config.model_case()) {
    case CostConfig::kMeasured:
      return config.measured().roofline();
    case CostConfig::kReplay:
      return config.replay().has_measured() ? config.replay().measured().roofline() : config.replay().roofline();
    case CostConfig::kRoofline:
    case CostConfig::MODEL_NOT_SET:
      break;
  }
  return config.roofline();
}

absl::StatusOr<std::unique_ptr<CostModel>> NewCostModel(const CostConfig& config, const ModelSpec& model,
                                                        const GpuSpec& gpu, std::shared_ptr<WorkTimes> times) {
  ASSIGN_OR_RETURN(const CostConfig complete, CompleteCostConfig(config, gpu));
  switch (complete.model_case()) {
    case CostConfig::kMeasured:
      return NewMeasuredCostModel(complete.measured(), complete.precision(), complete.permutation(), model, gpu);
    case CostConfig::kReplay:
      return NewReplayCostModel(complete.replay(), complete.precision(), complete.permutation(), model, gpu,
                                times != nullptr ? std::move(times) : std::make_shared<WorkTimes>());
    case CostConfig::kRoofline:
      return NewRooflineCostModel(complete.roofline(), complete.precision(), complete.permutation(), model, gpu);
    case CostConfig::MODEL_NOT_SET:
      break;
  }
  EPSIM_CHECK(!"a complete config");
  __builtin_unreachable();
}

}  // namespace epsim
