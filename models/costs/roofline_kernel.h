// One kernel on one GPU by the roofline: it starts, then memory and tensor cores set its pace.  All times are
// picoseconds in floating point; a stage adds its kernels up and rounds once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/costs/costs.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// What kernels reach of a GPU's peaks.
struct GpuRates {
  double ps_per_byte = 0;
  double bf16_ps = 0, fp8_ps = 0, fp4_ps = 0;                    // Per operation; 0 where the GPU has no such units.
  double decode_attention_ps = 0, prefill_attention_ps = 0;      // Per operation of attention proper, in bf16.
  double kernel_ps = 0, grouped_gemm_ps = 0, mla_decode_ps = 0;  // Floors.
  double sms = 1;
  double tile_start_ps = 0, sm_ps_per_byte = 0;  // Of one SM.
  int64_t tile_tokens = 1, widest_tile = 16;

  // REQUIRES: the GPU has the units.
  double PerFlop(NumberType compute) const;
};

// `config` with the timing of the catalogue for `gpu` where it says nothing itself.  What had to be assumed is added to
// `notes`, which may be null.  Fails on values that no GPU has (CheckTiming).
absl::StatusOr<RooflineConfig> CompleteRooflineConfig(const RooflineConfig& config, const GpuSpec& gpu,
                                                      std::vector<std::string>* notes);

// Peaks times efficiencies.  Fails on a GPU without bandwidth, bf16 peak or number of SMs.
// REQUIRES: CompleteRooflineConfig has made `complete`.
absl::StatusOr<GpuRates> MakeGpuRates(const RooflineConfig& complete, const GpuSpec& gpu);

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

// What the SMs take for `batch` products x w' with w [n, k], in tiles of rates.tile_tokens rows and w columns, on SMs
// that each take one tile after another:
//   min over w of ceil(row_tiles * batch * ceil(n / w) / sms) * tile(w)
//   tile(w) = tile_start + max(2 * tile_tokens * w * k * sms * ps_per_flop,
//                              (w * k * weight + tile_tokens * k * activation) * sm_ps_per_byte)
// with weight and activation in bytes a value, scales included.  A wave of tiles takes as long as a whole one however
// few they are; so does a tile with a single row.
class Tiles {
 public:
  Tiles() = default;
  Tiles(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations);

  // REQUIRES: 1 <= row_tiles.
  double Picoseconds(double row_tiles) const;
  // What a row tile takes at least: in waves that are full.
  double least_row_tile() const { return least_row_tile_; }

 private:
  struct Width {
    double waves_of_row_tile;  // batch * ceil(n / w) / sms.
    double tile;
  };
  std::vector<Width> widths_ = {{0, 0}};  // A default one has nothing to do.
  double least_row_tile_ = 0;
};

// The time of a kernel with this much work for memory and for the SMs, each alone: they overlap, but not all of the way
// (the first tiles wait for memory, the last leave it idle).
//   sqrt(memory^2 + tiles^2)
double Overlap(double memory, double tiles);

// `batch` products y[tokens, n] = x[tokens, k] w[n, k]' in one kernel (the heads of an absorbed projection; else 1):
//   floor + Overlap((weights + tokens * batch * (k * activation + n * 2)) * ps_per_byte, Tiles(ceil(tokens / tile)))
// without tokens the floor alone.  Outputs are bf16.  Activations narrower than bf16 are made from bf16 by a kernel of
// their own before it: floor + tokens * k * (2 + activation) * ps_per_byte.
class Gemm {
 public:
  Gemm() = default;
  Gemm(const GpuRates& rates, int64_t n, int64_t k, NumberType weights, NumberType activations)
      : Gemm(rates, 1, n, k, weights, activations) {}
  Gemm(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations);

  double Picoseconds(double tokens) const { return quantize_floor_ + tokens * quantize_token_ + Product(tokens); }
  // Without the kernel that narrows the activations.
  double Product(double tokens) const;

 private:
  double floor_ = 0;
  double quantize_floor_ = 0, quantize_token_ = 0;
  double weights_ = 0, token_ = 0;
  double tile_tokens_ = 1;
  Tiles tiles_;
};

// y_s[tokens_s, n] = x_s[tokens_s, k] w_s[n, k]' for the slots s of a rank in one kernel:
//   floor + Overlap((active * weights + pairs * (k * activation + n * 2)) * ps_per_byte, Tiles(row tiles)),
// active = slots with tokens, pairs = sum of tokens_s, row tiles = sum of ceil(tokens_s / tile).
class GroupedGemm {
 public:
  GroupedGemm() = default;
  GroupedGemm(const GpuRates& rates, int64_t n, int64_t k, NumberType weights, NumberType activations);

  // `active`, `pairs` and `scaled_row_tiles` may count each slot as often as its expert costs (its scale), `row_tiles`
  // counts each once: the tiles take scaled_row_tiles / row_tiles as long.  Nothing without tiles.
  double BeyondFloor(double active, double pairs, double row_tiles, double scaled_row_tiles) const;
  // No histogram of so many active slots and pairs takes less: each slot has a row tile, and a row tile so many rows.
  double LeastBeyondFloor(double active, double pairs) const;
  double floor() const { return floor_; }

 private:
  double floor_ = 0, slot_ = 0, pair_ = 0;
  double tile_tokens_ = 1;
  Tiles tiles_;
};

}  // namespace epsim
