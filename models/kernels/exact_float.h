// float32 arithmetic that gives the same bits on every CPU and GPU: each operation is rounded on its own (IEEE 754, to
// nearest even), and functions are made of such operations.  A kernel and its CPU twin can then be compared for
// equality, and choose the same experts where two scores differ in the last bit.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define EPSIM_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define EPSIM_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace epsim {

EPSIM_HOST_DEVICE uint32_t BitsOf(float x) { return __builtin_bit_cast(uint32_t, x); }
EPSIM_HOST_DEVICE float FloatOf(uint32_t bits) { return __builtin_bit_cast(float, bits); }

// nvcc would contract a * b + c; the host's compiler is told not to (-ffp-contract=off).
#ifdef __CUDA_ARCH__
EPSIM_HOST_DEVICE float Plus(float a, float b) { return __fadd_rn(a, b); }
EPSIM_HOST_DEVICE float Times(float a, float b) { return __fmul_rn(a, b); }
EPSIM_HOST_DEVICE float Quotient(float a, float b) { return __fdiv_rn(a, b); }
EPSIM_HOST_DEVICE float Reciprocal(float a) { return __frcp_rn(a); }  // The bits of 1 / a, in fewer instructions.
#else
EPSIM_HOST_DEVICE float Plus(float a, float b) { return a + b; }
EPSIM_HOST_DEVICE float Times(float a, float b) { return a * b; }
EPSIM_HOST_DEVICE float Quotient(float a, float b) { return a / b; }
EPSIM_HOST_DEVICE float Reciprocal(float a) { return 1.0f / a; }
#endif

// e^x to 2 units in the last place; 0 below -87, infinity above 88, NaN of NaN.
//   x = n ln 2 + f with n whole and |f| <= ln 2 / 2; e^x = 2^n e^f, and e^f is its Taylor polynomial of degree 7, whose
//   remainder f^8 / 8! is below 6e-9.
// ln 2 is the sum of 0x1.63p-1, whose product with n is exact, and a rest.
EPSIM_HOST_DEVICE float Exp(float x) {
  constexpr float kRound = 0x1.8p23f;  // Adding it leaves no room for a fraction.
  constexpr uint32_t kInfinityBits = 0x7f80'0000;
  const float shifted = Plus(Times(x, 0x1.715476p0f), kRound);
  const float n = Plus(shifted, -kRound);
  const float f = Plus(Plus(x, Times(n, -0x1.63p-1f)), Times(n, 0x1.bd0106p-13f));
  float p = Plus(Times(f, 1.0f / 5040), 1.0f / 720);
  p = Plus(Times(p, f), 1.0f / 120);
  p = Plus(Times(p, f), 1.0f / 24);
  p = Plus(Times(p, f), 1.0f / 6);
  p = Plus(Times(p, f), 0.5f);
  p = Plus(Plus(Times(Times(p, f), f), f), 1.0f);
  const uint32_t power = (BitsOf(shifted) - BitsOf(kRound) + 127) << 23;  // The bits of 2^n.
  // Without branches, so that compilers can make vectors of it.
  const uint32_t low = static_cast<uint32_t>(x < -87.0f), high = static_cast<uint32_t>(x > 88.0f);
  const uint32_t value = BitsOf(Times(p, FloatOf(power))) & (low - 1) & (high - 1);
  return FloatOf(value | (-high & kInfinityBits));
}

// 1 / (1 + e^-x).
EPSIM_HOST_DEVICE float Sigmoid(float x) { return Reciprocal(Plus(1.0f, Exp(-x))); }

// Whole numbers that are ordered as the floats are: -0 is 0, and NaN is below all.  Never 0, which is left for what is
// out of the question.
EPSIM_HOST_DEVICE uint32_t OrderedBits(float x) {
  const uint32_t bits = BitsOf(Plus(x, 0.0f));
  const uint32_t ordered = bits ^ ((bits >> 31 != 0) ? 0xffff'ffffu : 0x8000'0000u);
  return x != x ? 1u : ordered;
}
// The float that has those OrderedBits; NaN of 1.
EPSIM_HOST_DEVICE float FloatOfOrdered(uint32_t ordered) {
  return FloatOf(ordered ^ ((ordered >> 31 != 0) ? 0x8000'0000u : 0xffff'ffffu));
}

// bfloat16, as its bits.
EPSIM_HOST_DEVICE float FloatOfBf16(uint16_t bits) { return FloatOf(uint32_t{bits} << 16); }
// To nearest even; NaN stays NaN.
EPSIM_HOST_DEVICE uint16_t Bf16Of(float x) {
  const uint32_t bits = BitsOf(x);
  return static_cast<uint16_t>(x != x ? bits >> 16 | 0x40 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

}  // namespace epsim
