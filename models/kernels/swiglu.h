// The gate between the two products of an expert: silu(g) * u with silu(z) = z / (1 + exp(-z)), and the scale by which
// a block of values becomes fp8.  For the host and, compiled by nvcc, for the device: the same bits on both.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "models/kernels/exact_float.h"
#include "models/kernels/fp8.h"

namespace epsim {

EPSIM_HOST_DEVICE float Swiglu(float gate, float up) { return Times(Quotient(gate, Plus(1.0f, Exp(-gate))), up); }

// What values are multiplied by before they are rounded to fp8, and what the rounded values are multiplied by to give
// them back, where `largest` is the largest magnitude.  Zeros stay zeros.
struct Fp8Scale {
  float inverse, scale;
};
EPSIM_HOST_DEVICE Fp8Scale ScaleToFp8(float largest) {
  const float bounded = largest > 1e-30f ? largest : 1e-30f;
  return {Quotient(kLargestFp8, bounded), Quotient(bounded, kLargestFp8)};
}

// out[i] = Swiglu(gate[i], up[i]) for i < count, all in bf16.
inline void SwigluToBf16(const uint16_t* gate, const uint16_t* up, int count, uint16_t* out) {
  for (int i = 0; i < count; ++i) out[i] = Bf16Of(Swiglu(FloatOfBf16(gate[i]), FloatOfBf16(up[i])));
}

// The same to fp8: out[i] = Swiglu(gate[i], up[i]) / scale, rounded.  Returns the scale.  REQUIRES: count <= 128.
inline float SwigluToFp8(const uint16_t* gate, const uint16_t* up, int count, uint8_t* out) {
  float values[128];
  float largest = 0;
  for (int i = 0; i < count; ++i) {
    values[i] = Swiglu(FloatOfBf16(gate[i]), FloatOfBf16(up[i]));
    largest = std::max(largest, std::fabs(values[i]));
  }
  const Fp8Scale scale = ScaleToFp8(largest);
  for (int i = 0; i < count; ++i) out[i] = Fp8Of(values[i] * scale.inverse);
  return scale.scale;
}

}  // namespace epsim
