#include "models/kernels/row_products.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#define EPSIM_AVX2 __attribute__((target("avx2,fma,f16c")))

namespace epsim {
namespace {

constexpr int kRows = RowProducts::kWeightRows, kTokens = RowProducts::kTokens, kLanes = RowProducts::kLanes;

EPSIM_AVX2 void DecodeBf16(const uint16_t* bits, int64_t count, float* values) {
  for (int64_t i = 0; i < count; i += kLanes) {
    const __m128i narrow = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bits + i));
    const __m256i wide = _mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16);
    _mm256_storeu_ps(values + i, _mm256_castsi256_ps(wide));
  }
}

// e4m3 moved to the place of the exponent and mantissa of a half has 2^-8 of its value, subnormal numbers included.
EPSIM_AVX2 void DecodeFp8(const uint8_t* bits, int64_t count, float* values) {
  const __m256i magnitude_mask = _mm256_set1_epi16(0x7f), sign_mask = _mm256_set1_epi16(0x80);
  const __m256 two_to_8 = _mm256_set1_ps(256);
  for (int64_t i = 0; i < count; i += 2 * kLanes) {
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bits + i)));
    const __m256i half = _mm256_or_si256(_mm256_slli_epi16(_mm256_and_si256(wide, magnitude_mask), 7),
                                         _mm256_slli_epi16(_mm256_and_si256(wide, sign_mask), 8));
    const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
    const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
    _mm256_storeu_ps(values + i, _mm256_mul_ps(low, two_to_8));
    _mm256_storeu_ps(values + i + kLanes, _mm256_mul_ps(high, two_to_8));
  }
}

// Lanes i and i + 4, then i and i + 2, then i and i + 1.
EPSIM_AVX2 inline float AddLanes(__m256 lanes) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps(two, two, 1)));
}

template <int kCount>
EPSIM_AVX2 inline void AddTile(const RowProducts::Tile& tile, float* sums) {
  __m256 total[kRows][kCount];
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kCount; ++t) total[r][t] = _mm256_setzero_ps();
  }
  for (int64_t begin = 0, block = 0; begin < tile.count; begin += RowProducts::kBlock, ++block) {
    const int64_t end = std::min<int64_t>(begin + RowProducts::kBlock, tile.count);
    __m256 sum[kRows][kCount];
#pragma GCC unroll 4
    for (int t = 0; t < kCount; ++t) sum[0][t] = sum[1][t] = _mm256_setzero_ps();
    for (int64_t i = begin; i < end; i += kLanes) {
      const __m256 first = _mm256_loadu_ps(tile.weights + i), second = _mm256_loadu_ps(tile.weights + tile.count + i);
#pragma GCC unroll 4
      for (int t = 0; t < kCount; ++t) {
        const __m256 token = _mm256_loadu_ps(tile.tokens + t * tile.token_stride + i);
        sum[0][t] = _mm256_fmadd_ps(first, token, sum[0][t]);
        sum[1][t] = _mm256_fmadd_ps(second, token, sum[1][t]);
      }
    }
#pragma GCC unroll 2
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int t = 0; t < kCount; ++t) {
        const float scale = tile.weight_scales[r * tile.weight_scale_stride + block] *
                            tile.token_scales[t * tile.token_scale_stride + block];
        total[r][t] = _mm256_add_ps(total[r][t], _mm256_mul_ps(sum[r][t], _mm256_set1_ps(scale)));
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int t = 0; t < kCount; ++t) sums[r * kTokens + t] += AddLanes(total[r][t]);
  }
}

EPSIM_AVX2 void AddAnyTile(const RowProducts::Tile& tile, float* sums) {
  switch (tile.token_count) {
    case 1:
      return AddTile<1>(tile, sums);
    case 2:
      return AddTile<2>(tile, sums);
    case 3:
      return AddTile<3>(tile, sums);
    default:
      return AddTile<4>(tile, sums);
  }
}

}  // namespace

const RowProducts* Avx2RowProducts() {
  static constexpr RowProducts kAvx2 = {DecodeBf16, DecodeFp8, AddAnyTile};
  static const bool kSupported =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return kSupported ? &kAvx2 : nullptr;
}

}  // namespace epsim

#else

namespace epsim {
const RowProducts* Avx2RowProducts() { return nullptr; }
}  // namespace epsim

#endif
