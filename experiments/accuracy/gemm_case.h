#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_model.h"

namespace epsim {

// A measured product (kind dense_gemm: m, n, k, dtype), without the kernel that narrows its activations.
absl::StatusOr<std::unique_ptr<CaseModel>> NewDenseGemmCase(const Case& measured);

// A measured product with a matrix for each group of tokens (kind grouped_gemm: groups, tokens_per_group, n, k, dtype).
// With `tokens_spread` s the tokens of a group are any number from (1 - s) to (1 + s) times tokens_per_group, alike:
// the prediction takes the expected number of tiles.  Gate-up and down of the same tokens are one setup.
absl::StatusOr<std::unique_ptr<CaseModel>> NewGroupedGemmCase(const Case& measured);

}  // namespace epsim
