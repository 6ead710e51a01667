// One kernel on one GPU by the roofline: it starts, then either memory or the tensor cores set its pace.  All times are
// picoseconds in floating point; a stage adds its kernels up and rounds once.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/units.h"
#include "models/costs/costs.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// What a GPU reaches of its peaks.
struct GpuRates {
  double ps_per_byte = 0;
  double bf16_ps = 0, fp8_ps = 0, fp4_ps = 0;                    // Per operation; 0 where the GPU has no such units.
  double kernel_ps = 0, grouped_gemm_ps = 0, mla_decode_ps = 0;  // Floors.
  int64_t tile_tokens = 1;                                       // A power of two.

  // REQUIRES: the GPU has the units.
  double PerFlop(NumberType compute) const;
};

// `config` with its defaults where a field is 0 or empty.  Fails on values that no GPU has: an efficiency outside
// [0.001, 1], a tile that is no power of two, a floor above 1 s.
absl::StatusOr<RooflineConfig> CompleteRooflineConfig(const RooflineConfig& config);

// Peaks times efficiencies.  Fails as CompleteRooflineConfig does, and on a GPU without bandwidth or bf16 peak.
absl::StatusOr<GpuRates> MakeGpuRates(const RooflineConfig& config, const GpuSpec& gpu);

// A kernel that streams: floor + tokens * bytes_per_token * ps_per_byte.
class Elementwise {
 public:
  Elementwise() = default;
  Elementwise(const GpuRates& rates, double bytes_per_token)
      : floor_(rates.kernel_ps), token_(bytes_per_token * rates.ps_per_byte) {}

  double Picoseconds(double tokens) const { return floor_ + tokens * token_; }

 private:
  double floor_ = 0, token_ = 0;
};

// `batch` products y[tokens, n] = x[tokens, k] w[n, k]' in one kernel (the heads of an absorbed projection; else 1):
//   floor + max((weights + tokens * batch * (k * activation + n * 2)) * ps_per_byte,
//               ceil(tokens / tile) * tile * batch * 2 * n * k * ps_per_flop)
// without tokens the floor alone.  Outputs are bf16.  Activations narrower than bf16 are made from bf16 by a kernel of
// their own before it: floor + tokens * k * (2 + activation) * ps_per_byte.
class Gemm {
 public:
  Gemm() = default;
  Gemm(const GpuRates& rates, int64_t n, int64_t k, NumberType weights, NumberType activations)
      : Gemm(rates, 1, n, k, weights, activations) {}
  Gemm(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations);

  double Picoseconds(double tokens) const;

 private:
  double floor_ = 0;  // Of both kernels.
  double quantize_token_ = 0;
  double weights_ = 0, token_ = 0;
  double row_ = 0;  // Compute time of one row of a tile.
  double tile_ = 1;
};

}  // namespace epsim
