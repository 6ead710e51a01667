// What a work asks of a GPU at its stated peaks, without floors: bytes over memory bandwidth or operations over compute
// rate, whichever takes longer.  Measured times are read as multiples of it.
#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "models/kernels/clock/kernel_work.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

// Picoseconds at the peaks; 0 a flop where the GPU has no such units.
struct GpuPeaks {
  double ps_per_byte = 0;
  double bf16_ps = 0, fp8_ps = 0, fp4_ps = 0;

  // Of numbers without units of their own, that of bf16.
  double PerFlop(NumberType compute) const;
};

// Fails on a GPU without bandwidth or bf16 peak.
absl::StatusOr<GpuPeaks> MakeGpuPeaks(const GpuSpec& gpu);

// Of a kernel over `tokens` tokens: max(fixed + tokens * token, tokens * compute) picoseconds.
struct TokenDemand {
  double fixed = 0;    // Weights.
  double token = 0;    // Bytes of a token.
  double compute = 0;  // Operations of a token.

  double Picoseconds(double tokens) const;
};

TokenDemand GemmDemand(const GpuPeaks& peaks, int64_t n, int64_t k, NumberType values);
// Reads float32 logits, writes int32 ids and float32 weights.
TokenDemand RouterDemand(const GpuPeaks& peaks, int64_t experts, int64_t top_k);
// Of a token with `top_k` rows: all of them are written and the token is read, or the other way round.
TokenDemand PermuteDemand(const GpuPeaks& peaks, int64_t top_k, int64_t hidden, NumberType values);
// Of a byte: read and written.
TokenDemand CopyDemand(const GpuPeaks& peaks);

// Of experts [inter, hidden]: gate and up, SwiGLU, and down, one after the other.  With `active` slots that have
// tokens, `pairs` tokens in all, and `rows` of tiles:
//   max(active * W13 + pairs * (a(H) + 4 * I) B, rows * 4 * H * I flop) + pairs * (4 * I + a(I)) B
//   + max(active * W2 + pairs * (a(I) + 2 * H) B, rows * 2 * H * I flop)
// as in roofline_cost_model.h.
class ExpertDemand {
 public:
  ExpertDemand() = default;
  ExpertDemand(const GpuPeaks& peaks, int64_t hidden, int64_t inter, NumberType weights, NumberType activations);

  double Picoseconds(double active, double pairs, double rows) const;

 private:
  double gate_up_slot_ = 0, gate_up_pair_ = 0, gate_up_row_ = 0;
  double swiglu_pair_ = 0;
  double down_slot_ = 0, down_pair_ = 0, down_row_ = 0;
};

}  // namespace epsim
