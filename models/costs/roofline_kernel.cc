#include "models/costs/roofline_kernel.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/number_type.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

// Evidence beside the fields in costs.proto.
constexpr double kMemoryEfficiency = 0.84;
constexpr double kComputeEfficiency = 0.65;
constexpr char kKernelFloor[] = "2.5 us";
constexpr uint32_t kTileTokens = 64;
constexpr char kGroupedGemmFloor[] = "10 us";
constexpr char kMlaDecodeFloor[] = "15 us";

// A kernel that reaches less of a GPU is not limited by its memory or tensor cores.
constexpr double kLeastEfficiency = 0.001;

absl::Status CheckEfficiency(const char* field, double value) {
  if (value >= kLeastEfficiency && value <= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("roofline.", field, " is ", value, "; it must be from ", kLeastEfficiency, " to 1"));
}

absl::StatusOr<double> FloorPicoseconds(const char* field, const std::string& text) {
  const absl::StatusOr<Duration> floor = ParseHardwareLatency(text);
  if (floor.ok()) return static_cast<double>(floor->count());
  return absl::InvalidArgumentError(absl::StrCat("roofline.", field, ": ", floor.status().message()));
}

// Picoseconds per operation; 0 where the GPU has no such units.
absl::StatusOr<double> PerOperation(const GpuSpec& gpu, const char* field, const std::string& peak, double efficiency) {
  if (peak.empty()) return 0.0;
  const absl::StatusOr<FlopsPerSecond> rate = ParseHardwareComputeRate(peak);
  if (!rate.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": ", field, ": ", rate.status().message()));
  }
  return 1e12 / (efficiency * rate->count());
}

}  // namespace

double GpuRates::PerFlop(NumberType compute) const {
  const double ps = compute == BF16 ? bf16_ps : IsEightBit(compute) ? fp8_ps : IsFourBit(compute) ? fp4_ps : 0;
  EPSIM_CHECK(ps > 0);
  return ps;
}

absl::StatusOr<RooflineConfig> CompleteRooflineConfig(const RooflineConfig& config) {
  RooflineConfig complete = config;
  if (config.memory_efficiency() == 0) complete.set_memory_efficiency(kMemoryEfficiency);
  if (config.compute_efficiency() == 0) complete.set_compute_efficiency(kComputeEfficiency);
  if (config.kernel_floor().empty()) complete.set_kernel_floor(kKernelFloor);
  if (config.tile_tokens() == 0) complete.set_tile_tokens(kTileTokens);
  if (config.grouped_gemm_floor().empty()) complete.set_grouped_gemm_floor(kGroupedGemmFloor);
  if (config.mla_decode_floor().empty()) complete.set_mla_decode_floor(kMlaDecodeFloor);

  RETURN_IF_ERROR(CheckEfficiency("memory_efficiency", complete.memory_efficiency()));
  RETURN_IF_ERROR(CheckEfficiency("compute_efficiency", complete.compute_efficiency()));
  const uint32_t tile = complete.tile_tokens();
  if ((tile & (tile - 1)) != 0 || tile > 1024) {
    return absl::InvalidArgumentError(
        absl::StrCat("roofline.tile_tokens is ", tile, "; it must be a power of two up to 1024"));
  }
  RETURN_IF_ERROR(FloorPicoseconds("kernel_floor", complete.kernel_floor()).status());
  RETURN_IF_ERROR(FloorPicoseconds("grouped_gemm_floor", complete.grouped_gemm_floor()).status());
  RETURN_IF_ERROR(FloorPicoseconds("mla_decode_floor", complete.mla_decode_floor()).status());
  return complete;
}

absl::StatusOr<GpuRates> MakeGpuRates(const RooflineConfig& config, const GpuSpec& gpu) {
  ASSIGN_OR_RETURN(const RooflineConfig complete, CompleteRooflineConfig(config));
  const double memory = complete.memory_efficiency(), compute = complete.compute_efficiency();
  GpuRates rates;
  rates.tile_tokens = complete.tile_tokens();
  ASSIGN_OR_RETURN(rates.kernel_ps, FloorPicoseconds("kernel_floor", complete.kernel_floor()));
  ASSIGN_OR_RETURN(rates.grouped_gemm_ps, FloorPicoseconds("grouped_gemm_floor", complete.grouped_gemm_floor()));
  ASSIGN_OR_RETURN(rates.mla_decode_ps, FloorPicoseconds("mla_decode_floor", complete.mla_decode_floor()));

  const absl::StatusOr<BytesPerSecond> bandwidth = ParseHardwareBandwidth(gpu.memory_bandwidth());
  if (!bandwidth.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpu \"", gpu.name(), "\": memory_bandwidth: ", bandwidth.status().message()));
  }
  rates.ps_per_byte = 1e12 / (memory * static_cast<double>(bandwidth->count()));
  ASSIGN_OR_RETURN(rates.bf16_ps, PerOperation(gpu, "bf16", gpu.bf16(), compute));
  ASSIGN_OR_RETURN(rates.fp8_ps, PerOperation(gpu, "fp8", gpu.fp8(), compute));
  ASSIGN_OR_RETURN(rates.fp4_ps, PerOperation(gpu, "fp4", gpu.fp4(), compute));
  if (rates.bf16_ps == 0) {
    return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": bf16 is missing; attention needs it"));
  }
  return rates;
}

Gemm::Gemm(const GpuRates& rates, int64_t batch, int64_t n, int64_t k, NumberType weights, NumberType activations)
    : floor_(rates.kernel_ps), tile_(static_cast<double>(rates.tile_tokens)) {
  const auto input = static_cast<double>(ActivationBytes(batch * k, activations).count());
  const auto values_in = static_cast<double>(batch * k), values_out = static_cast<double>(batch * n);
  if (activations != BF16) {
    floor_ += rates.kernel_ps;
    quantize_token_ = (2 * values_in + input) * rates.ps_per_byte;
  }
  weights_ = static_cast<double>(WeightBytes(batch * n, k, weights).count()) * rates.ps_per_byte;
  token_ = (input + 2 * values_out) * rates.ps_per_byte;
  row_ = 2 * values_out * static_cast<double>(k) * rates.PerFlop(Wider(weights, activations));
}

double Gemm::Picoseconds(double tokens) const {
  if (tokens == 0) return floor_;
  return floor_ + tokens * quantize_token_ +
         std::max(weights_ + tokens * token_, std::ceil(tokens / tile_) * tile_ * row_);
}

}  // namespace epsim
