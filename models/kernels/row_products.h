// The inner loop of matrix products on the CPU: sums of products along the rows of two matrices, in float32.
//
// bf16 and fp8 values have at most eight significant bits, so that products of two are exact in float32 and a fused
// multiply-add rounds as a product and a sum do; the lanes are added up in one order.  Therefore every instruction set
// gives the same bits.
#pragma once

#include <cstdint>

namespace epsim {

struct RowProducts {
  static constexpr int kLanes = 8;
  static constexpr int kWeightRows = 2, kTokens = 4;  // Of a tile, at most so many tokens.
  static constexpr int kBlock = 128;                  // Values that share a scale.

  // A tile: kWeightRows rows against some tokens, `count` values each.
  struct Tile {
    const float* weights = nullptr;  // [kWeightRows, count]
    const float* tokens = nullptr;   // [token_count, count], rows `token_stride` apart.
    int64_t token_stride = 0;
    int token_count = 0;  // 1 to kTokens.
    // Of each block of kBlock values, the last may be shorter: [kWeightRows, blocks] and [token_count, blocks].
    const float* weight_scales = nullptr;
    const float* token_scales = nullptr;
    int64_t weight_scale_stride = 0, token_scale_stride = 0;
    int64_t count = 0;  // A multiple of 2 kLanes.
  };

  // values[i] = what bits[i] stands for.  `count` is a multiple of 2 kLanes.
  void (*decode_bf16)(const uint16_t* bits, int64_t count, float* values);
  void (*decode_fp8)(const uint8_t* bits, int64_t count, float* values);
  // sums[r * kTokens + t] += sum over blocks b of weight_scales[r, b] * token_scales[t, b] * sum over the block of
  // weights[r, i] * tokens[t, i].
  void (*add_tile)(const Tile& tile, float* sums);
};

const RowProducts& PortableRowProducts();
// With AVX2, FMA and F16C; null where this machine lacks them.
const RowProducts* Avx2RowProducts();
// The fastest that this machine has.
const RowProducts& FastestRowProducts();

}  // namespace epsim
