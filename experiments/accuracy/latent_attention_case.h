#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_model.h"

namespace epsim {

// Latent attention with DeepSeek-V3's head dimensions (kinds mla_decode: heads, batch, kv_len; mla_prefill: heads,
// batch, isl).  `scope` is "attention_block", with all projections in gemm_dtype, or, in decode, "core": attention
// proper.
absl::StatusOr<std::unique_ptr<CaseModel>> NewLatentAttentionCase(const Case& measured);

}  // namespace epsim
