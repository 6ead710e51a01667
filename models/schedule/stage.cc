#include "models/schedule/stage.h"

#include "engine/check.h"

namespace epsim {

std::string_view Name(StageKind kind) {
  switch (kind) {
    case StageKind::kAttention:
      return "attention";
    case StageKind::kDenseMlp:
      return "dense_mlp";
    case StageKind::kRouter:
      return "router";
    case StageKind::kStatistics:
      return "statistics";
    case StageKind::kQuantize:
      return "quantize";
    case StageKind::kDispatch:
      return "dispatch";
    case StageKind::kSharedExperts:
      return "shared_experts";
    case StageKind::kRoutedExperts:
      return "routed_experts";
    case StageKind::kFusedExperts:
      return "fused_experts";
    case StageKind::kCombine:
      return "combine";
    case StageKind::kLmHead:
      return "lm_head";
    case StageKind::kPlanning:
      return "planning";
    case StageKind::kMigration:
      return "migration";
    case StageKind::kDetection:
      return "detection";
  }
  EPSIM_CHECK(false);
}

std::string_view Name(EplbHook hook) {
  switch (hook) {
    case EplbHook::kStartWaitGpu:
      return "start_wait_gpu";
    case EplbHook::kDoneWaitGpu:
      return "done_wait_gpu";
    case EplbHook::kUpdateStatistic:
      return "update_statistic";
    case EplbHook::kRoute:
      return "route";
    case EplbHook::kStartSetCpu:
      return "start_set_cpu";
    case EplbHook::kDoneSetCpu:
      return "done_set_cpu";
  }
  EPSIM_CHECK(false);
}

}  // namespace epsim
