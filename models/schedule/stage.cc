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
    case StageKind::kDispatch:
      return "dispatch";
    case StageKind::kSharedExperts:
      return "shared_experts";
    case StageKind::kRoutedExperts:
      return "routed_experts";
    case StageKind::kCombine:
      return "combine";
    case StageKind::kLmHead:
      return "lm_head";
  }
  EPSIM_CHECK(false);
}

}  // namespace epsim
