#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_model.h"

namespace epsim {

// The experts of the hottest rank of an expert-parallel group (kind moe_layer: ep, experts, slots, top_k, hidden,
// inter, dtype, global_tokens, distribution).  Tokens are spread evenly ("uniform") or drawn ("power_law" with alpha,
// power_law_load.h), placed in order or, with eplb_slots, by EPLB with an expert's tokens shared evenly by its
// replicas. A drawn case is the mean over draws; where the case states the tokens of the hottest rank, over those of
// the draws that come nearest to it.  In mode "generation" rows arrive in the order of slots, in others they are
// permuted.
absl::StatusOr<std::unique_ptr<CaseModel>> NewExpertLayerCase(const Case& measured);

// All experts of a layer on one GPU (kind fused_moe: tokens, experts, top_k, hidden, inter, dtype, active_experts), the
// pairs spread evenly over the active ones.
absl::StatusOr<std::unique_ptr<CaseModel>> NewFusedMoeCase(const Case& measured);

}  // namespace epsim
