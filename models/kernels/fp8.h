// fp8 in the format e4m3 without infinities (Micikevicius et al. 2022, "FP8 formats for deep learning"), as its bits
// and as what they stand for: sign, four bits of exponent (bias 7), three of mantissa; 0x7f and 0xff are not numbers.
// For the host and, compiled by nvcc, for the device.
#pragma once

#include <cstdint>

#include "models/kernels/exact_float.h"

namespace epsim {

inline constexpr float kLargestFp8 = 448;

EPSIM_HOST_DEVICE float FloatOfFp8(uint8_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x80) << 24;
  const uint32_t magnitude = bits & 0x7f;
  if (magnitude == 0x7f) return FloatOf(sign | 0x7fc00000);
  if (magnitude >= 8) return FloatOf(sign | ((magnitude << 20) + (120u << 23)));
  return FloatOf(sign | BitsOf(static_cast<float>(magnitude) * 0x1p-9f));
}

// To the nearest, ties to even; what is larger than kLargestFp8 becomes that.
EPSIM_HOST_DEVICE uint8_t Fp8Of(float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t sign = bits >> 24 & 0x80;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint8_t>(sign | 0x7f);
  if (magnitude < BitsOf(0x1p-6f)) {  // A multiple of 2^-9: adding 2^14 leaves nothing below that bit.
    return static_cast<uint8_t>(sign | (BitsOf(Plus(FloatOf(magnitude), 0x1p14f)) - BitsOf(0x1p14f)));
  }
  const uint32_t rounded = (magnitude + 0x7ffff + (magnitude >> 20 & 1)) >> 20;  // Exponent and three bits.
  const uint32_t code = rounded - (120u << 3);
  return static_cast<uint8_t>(sign | (code > 0x7e ? 0x7e : code));
}

}  // namespace epsim
