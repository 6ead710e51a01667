#include "models/calibration/work_demand.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/number_type.h"
#include "platforms/cluster.h"

namespace epsim {
namespace {

absl::StatusOr<double> PerOperation(const GpuSpec& gpu, const char* field, const std::string& peak) {
  if (peak.empty()) return 0.0;
  const absl::StatusOr<FlopsPerSecond> rate = ParseHardwareComputeRate(peak);
  if (rate.ok()) return 1e12 / rate->count();
  return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": ", field, ": ", rate.status().message()));
}

double Activation(int64_t values, NumberType type) {
  return static_cast<double>(ActivationBytes(values, type).count());
}

}  // namespace

double GpuPeaks::PerFlop(NumberType compute) const {
  const double ps = IsEightBit(compute) ? fp8_ps : IsFourBit(compute) ? fp4_ps : bf16_ps;
  return ps > 0 ? ps : bf16_ps;
}

absl::StatusOr<GpuPeaks> MakeGpuPeaks(const GpuSpec& gpu) {
  GpuPeaks peaks;
  const absl::StatusOr<BytesPerSecond> bandwidth = ParseHardwareBandwidth(gpu.memory_bandwidth());
  if (!bandwidth.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat("gpu \"", gpu.name(), "\": memory_bandwidth: ", bandwidth.status().message()));
  }
  peaks.ps_per_byte = 1e12 / static_cast<double>(bandwidth->count());
  ASSIGN_OR_RETURN(peaks.bf16_ps, PerOperation(gpu, "bf16", gpu.bf16()));
  ASSIGN_OR_RETURN(peaks.fp8_ps, PerOperation(gpu, "fp8", gpu.fp8()));
  ASSIGN_OR_RETURN(peaks.fp4_ps, PerOperation(gpu, "fp4", gpu.fp4()));
  if (peaks.bf16_ps == 0) return absl::InvalidArgumentError(absl::StrCat("gpu \"", gpu.name(), "\": bf16 is missing"));
  return peaks;
}

double TokenDemand::Picoseconds(double tokens) const { return std::max(fixed + tokens * token, tokens * compute); }

TokenDemand GemmDemand(const GpuPeaks& peaks, int64_t n, int64_t k, NumberType values) {
  return {.fixed = static_cast<double>(WeightBytes(n, k, values).count()) * peaks.ps_per_byte,
          .token = (Activation(k, values) + 2.0 * static_cast<double>(n)) * peaks.ps_per_byte,
          .compute = 2.0 * static_cast<double>(n) * static_cast<double>(k) * peaks.PerFlop(values)};
}

TokenDemand RouterDemand(const GpuPeaks& peaks, int64_t experts, int64_t top_k) {
  return {.fixed = 0, .token = static_cast<double>(4 * experts + 8 * top_k) * peaks.ps_per_byte, .compute = 0};
}

TokenDemand PermuteDemand(const GpuPeaks& peaks, int64_t top_k, int64_t hidden, NumberType values) {
  return {.fixed = 0,
          .token = static_cast<double>(1 + top_k) * Activation(hidden, values) * peaks.ps_per_byte,
          .compute = 0};
}

TokenDemand CopyDemand(const GpuPeaks& peaks) { return {.fixed = 0, .token = 2 * peaks.ps_per_byte, .compute = 0}; }

ExpertDemand::ExpertDemand(const GpuPeaks& peaks, int64_t hidden, int64_t inter, NumberType weights,
                           NumberType activations) {
  const double h = static_cast<double>(hidden), i = static_cast<double>(inter), byte = peaks.ps_per_byte;
  const double flop = peaks.PerFlop(Wider(weights, activations));
  gate_up_slot_ = 2.0 * static_cast<double>(WeightBytes(inter, hidden, weights).count()) * byte;
  gate_up_pair_ = (Activation(hidden, activations) + 4 * i) * byte;
  gate_up_row_ = 4 * h * i * flop;
  swiglu_pair_ = (4 * i + Activation(inter, activations)) * byte;
  down_slot_ = static_cast<double>(WeightBytes(hidden, inter, weights).count()) * byte;
  down_pair_ = (Activation(inter, activations) + 2 * h) * byte;
  down_row_ = 2 * h * i * flop;
}

double ExpertDemand::Picoseconds(double active, double pairs, double rows) const {
  return std::max(active * gate_up_slot_ + pairs * gate_up_pair_, rows * gate_up_row_) + pairs * swiglu_pair_ +
         std::max(active * down_slot_ + pairs * down_pair_, rows * down_row_);
}

}  // namespace epsim
