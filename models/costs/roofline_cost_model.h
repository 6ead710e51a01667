// Costs from first principles: bytes over memory bandwidth against operations over compute rate, kernel by kernel.
// Always there, for any model on any GPU; what the formulas leave out is in the efficiencies (costs.proto).
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "models/costs/cost_model.h"

namespace epsim {

// A rank holds the whole of attention, dense layers and shared experts (data-parallel attention), and some slots of
// routed experts.  Stages, in kernels of roofline_kernel.h, with H = hidden and a(v) = ActivationBytes(v):
//
//   attention       roofline_attention.h; full and local or linear layers averaged by their number
//   dense MLP       norm (8 * H B a token), GEMM [2 * I, H], SwiGLU (6 * I B), GEMM [H, I], with I = dense_intermediate
//   shared experts  the same without norm, I = shared_intermediate
//   router          norm, GEMM [experts, H] in bf16, top-k (2 * experts + 8 * top_k B)
//   quantisation    a(H) + 2 * H B a token, in the type of dispatch or, where that is bf16, of expert activations
//   head            norm (4 * H B), GEMM [vocabulary, H]
//   routed experts  RooflineExperts (roofline_experts.h), with `permutation` and RooflinePermutation.  Experts of
//   unequal
//                   cost count by their scale s: active = sum s, pairs = sum s * t, tiles s times as long; the floors
//                   are those of the kernels and stay.
//
// Payloads: dispatch a(H) in `precision.dispatch`, combine 2 * H.
// REQUIRES: no type in `precision` is NUMBER_TYPE_DEFAULT (CompleteCostConfig).
absl::StatusOr<std::unique_ptr<CostModel>> NewRooflineCostModel(const RooflineConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu);

}  // namespace epsim
