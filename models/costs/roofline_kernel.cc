#include "models/costs/roofline_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/number_type.h"
#include "models/timing/library_timing.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

constexpr int64_t kNarrowestTile = 16, kTileStep = 8;

// Picoseconds per operation; 0 where the GPU has no such units.
absl::StatusOr<double> PerOperation(const GpuSpec& gpu, const char* field, const std::string& peak, double efficiency) {
  if (peak.empty()) return 0.0;
  const absl::StatusOr<FlopsPerSecond> rate = ParseHardwareComputeRate(peak);
  if (!rate.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": ", field, ": ", rate.status().message()));
  }
  return 1e12 / (efficiency * rate->count());
}

double Count(Bytes bytes) { return static_cast<double>(bytes.count()); }

// The least whole number that is not below x.  REQUIRES: 0 <= x < 2^51.
double Ceiling(double x) {
  constexpr double kShift = 6755399441055744.0;  // 1.5 * 2^52: a sum with it has no fraction.
  const double nearest = (x + kShift) - kShift;
  return nearest + (nearest < x ? 1.0 : 0.0);
}

}  // namespace

double GpuRates::PerFlop(NumberType compute) const {
  const double ps = compute == BF16 ? bf16_ps : IsEightBit(compute) ? fp8_ps : IsFourBit(compute) ? fp4_ps : 0;
  EPSIM_CHECK(ps > 0);
  return ps;
}

absl::StatusOr<RooflineConfig> CompleteRooflineConfig(const RooflineConfig& config, const GpuSpec& gpu,
                                                      std::vector<std::string>* notes) {
  std::vector<std::string> unread;
  if (notes == nullptr) notes = &unread;
  RooflineConfig complete = config;
  LibraryTiming own;
  *own.mutable_flash_attention() = config.attention();
  ASSIGN_OR_RETURN(const LibraryTiming attention,
                   KernelTimingFor("flash_attention", "roofline.attention", gpu, own, notes));
  *complete.mutable_attention() = attention.flash_attention();
  switch (config.gemm_library()) {
    case RooflineConfig::DEEP_GEMM: {
      *own.mutable_deep_gemm() = config.gemm();
      ASSIGN_OR_RETURN(const LibraryTiming gemm, KernelTimingFor("deep_gemm", "roofline.gemm", gpu, own, notes));
      *complete.mutable_gemm() = gemm.deep_gemm();
      return complete;
    }
    case RooflineConfig::TRITON: {
      *own.mutable_triton() = config.gemm();
      ASSIGN_OR_RETURN(const LibraryTiming gemm, KernelTimingFor("triton", "roofline.gemm", gpu, own, notes));
      *complete.mutable_gemm() = gemm.triton();
      return complete;
    }
    default:
      break;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("roofline.gemm_library: ", static_cast<int>(config.gemm_library()), " is no library"));
}

absl::StatusOr<GpuRates> MakeGpuRates(const RooflineConfig& complete, const GpuSpec& gpu) {
  const GemmTiming& gemm = complete.gemm();
  const AttentionTiming& attention = complete.attention();
  const auto problem = [&](const auto&... parts) {
    return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": ", parts...));
  };
  GpuRates rates;
  rates.kernel_ps = PicosecondsOf(gemm.floor());
  rates.grouped_gemm_ps = PicosecondsOf(gemm.grouped_floor());
  rates.mla_decode_ps = PicosecondsOf(attention.decode_floor());
  rates.tile_start_ps = PicosecondsOf(gemm.tile_start());
  rates.sm_ps_per_byte = PicosecondsPerByte(gemm.sm_bandwidth());
  rates.tile_tokens = gemm.tile_tokens();
  rates.widest_tile = gemm.widest_tile();
  if (gpu.sms() == 0) return problem("sms is missing; GEMMs work in waves of as many tiles");
  rates.sms = gpu.sms();

  const absl::StatusOr<BytesPerSecond> bandwidth = ParseHardwareBandwidth(gpu.memory_bandwidth());
  if (!bandwidth.ok()) return problem("memory_bandwidth: ", bandwidth.status().message());
  rates.ps_per_byte = 1e12 / (gemm.memory_efficiency() * static_cast<double>(bandwidth->count()));
  ASSIGN_OR_RETURN(rates.bf16_ps, PerOperation(gpu, "bf16", gpu.bf16(), gemm.compute_efficiency()));
  ASSIGN_OR_RETURN(rates.fp8_ps, PerOperation(gpu, "fp8", gpu.fp8(), gemm.compute_efficiency()));
  ASSIGN_OR_RETURN(rates.fp4_ps, PerOperation(gpu, "fp4", gpu.fp4(), gemm.compute_efficiency()));
  if (rates.bf16_ps == 0) return problem("bf16 is missing; attention needs it");
  rates.decode_attention_ps = rates.bf16_ps * gemm.compute_efficiency() / attention.decode_compute_efficiency();
  rates.prefill_attention_ps = rates.bf16_ps * gemm.compute_efficiency() / attention.prefill_compute_efficiency();
  return rates;
}

Tiles::Tiles(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations) {
  if (n == 0 || k == 0) return;  // The model has no such matrix.
  const double flop = rates.PerFlop(Wider(weights, activations)) * rates.sms;
  const auto rows = static_cast<double>(rates.tile_tokens);
  const double column_bytes = Count(WeightBytes(n, k, weights)) / static_cast<double>(n);
  const double row_bytes = Count(ActivationBytes(k, activations));
  widths_.clear();
  least_row_tile_ = std::numeric_limits<double>::infinity();
  for (int64_t w = kNarrowestTile; w <= std::max(kNarrowestTile, rates.widest_tile); w += kTileStep) {
    const auto columns = static_cast<double>(w);
    const double compute = 2 * rows * columns * static_cast<double>(k) * flop;
    const double load = (columns * column_bytes + rows * row_bytes) * rates.sm_ps_per_byte;
    const double tile = rates.tile_start_ps + std::max(compute, load);
    const auto column_tiles = static_cast<double>(batch * ((n + w - 1) / w));
    widths_.push_back({column_tiles / rates.sms, tile});
    least_row_tile_ = std::min(least_row_tile_, column_tiles / rates.sms * tile);
  }
  // A width that needs as many waves and longer tiles than another never is the best.
  std::sort(widths_.begin(), widths_.end(), [](const Width& a, const Width& b) {
    return a.waves_of_row_tile < b.waves_of_row_tile || (a.waves_of_row_tile == b.waves_of_row_tile && a.tile < b.tile);
  });
  double shortest = std::numeric_limits<double>::infinity();
  std::erase_if(widths_, [&](const Width& width) {
    const bool beaten = width.tile >= shortest;
    shortest = std::min(shortest, width.tile);
    return beaten;
  });
}

double Tiles::Picoseconds(double row_tiles) const {
  double best = std::numeric_limits<double>::infinity();
  for (const Width& width : widths_) {
    best = std::min(best, Ceiling(row_tiles * width.waves_of_row_tile) * width.tile);
  }
  return best;
}

double Overlap(double memory, double tiles) { return std::sqrt(memory * memory + tiles * tiles); }

Gemm::Gemm(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations)
    : floor_(rates.kernel_ps),
      tile_tokens_(static_cast<double>(rates.tile_tokens)),
      tiles_(rates, batch, n, k, weights, activations) {
  const double input = Count(ActivationBytes(batch * k, activations));
  const auto values_in = static_cast<double>(batch * k), values_out = static_cast<double>(batch * n);
  if (activations != BF16) {
    quantize_floor_ = rates.kernel_ps;
    quantize_token_ = (2 * values_in + input) * rates.ps_per_byte;
  }
  weights_ = Count(WeightBytes(batch * n, k, weights)) * rates.ps_per_byte;
  token_ = (input + 2 * values_out) * rates.ps_per_byte;
}

double Gemm::Product(double tokens) const {
  if (tokens == 0) return floor_;
  return floor_ + Overlap(weights_ + tokens * token_, tiles_.Picoseconds(Ceiling(tokens / tile_tokens_)));
}

GroupedGemm::GroupedGemm(const GpuRates& rates, int64_t n, int64_t k, NumberType weights, NumberType activations)
    : floor_(rates.grouped_gemm_ps),
      slot_(Count(WeightBytes(n, k, weights)) * rates.ps_per_byte),
      pair_((Count(ActivationBytes(k, activations)) + 2.0 * static_cast<double>(n)) * rates.ps_per_byte),
      tile_tokens_(static_cast<double>(rates.tile_tokens)),
      tiles_(rates, 1, n, k, weights, activations) {}

double GroupedGemm::BeyondFloor(double active, double pairs, double row_tiles, double scaled_row_tiles) const {
  if (row_tiles == 0) return 0;
  return Overlap(active * slot_ + pairs * pair_, tiles_.Picoseconds(row_tiles) * (scaled_row_tiles / row_tiles));
}

double GroupedGemm::LeastBeyondFloor(double active, double pairs) const {
  const double row_tiles = std::max(active, pairs / tile_tokens_);
  return Overlap(active * slot_ + pairs * pair_, row_tiles * tiles_.least_row_tile());
}

}  // namespace epsim
