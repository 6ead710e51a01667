// The routed experts of one rank by the roofline, from the whole histogram of tokens per slot.
#pragma once

#include <cstdint>
#include <optional>

#include "absl/types/span.h"
#include "models/costs/costs.pb.h"
#include "models/costs/roofline_kernel.h"
#include "models/model.pb.h"

namespace epsim {

// Rows from the order of tokens to that of slots, where an exchange does not deliver them so, and results back,
// weighted and added up:
//   scatter  kernel_floor + pairs * 2 * a(H) B
//   gather   kernel_floor + (pairs + tokens) * 2 * H B
// A library that reads the rows where they are has the second kernel only.
class RooflinePermutation {
 public:
  RooflinePermutation(const GpuRates& rates, const ModelSpec& model, NumberType activations,
                      RooflineConfig::GemmLibrary library);

  // `tokens` rows with `pairs` token-expert pairs on this rank.  Without pairs the floors remain.
  double Picoseconds(double tokens, double pairs) const;

 private:
  bool scatters_;
  Elementwise scatter_, gather_;
};

// With H = hidden, I = moe_intermediate and a(v) = ActivationBytes(v) of the expert activations:
//   gate and up  GroupedGemm [2 * I, H]
//   SwiGLU       kernel_floor + pairs * (4 * I + a(I)) B
//   down         GroupedGemm [H, I]
// Without tokens the floors remain.
class RooflineExperts {
 public:
  // With `permutation`, of as many rows as pairs.
  RooflineExperts(const GpuRates& rates, const ModelSpec& model, NumberType weights, NumberType activations,
                  std::optional<RooflinePermutation> permutation);

  // `scale` as of CostModel::RoutedExperts: active slots, pairs and tiles count by it; the floors are those of the
  // kernels and stay.
  double Picoseconds(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const;
  // As of CostModel::LeastExperts.  Times beyond the floors are convex in the sums over slots, so that the mean over
  // the GPUs is not below the time of the means.
  double LeastPicoseconds(double active, double pairs, int gpus) const;

 private:
  double Streamed(double pairs) const;  // What works on rows, not on weights.
  double Sum(double active, double pairs, double row_tiles, double scaled_row_tiles) const;

  uint32_t tile_tokens_;
  GroupedGemm gate_up_, down_;
  Elementwise swiglu_;
  std::optional<RooflinePermutation> permutation_;
};

}  // namespace epsim
