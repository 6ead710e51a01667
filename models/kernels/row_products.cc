#include "models/kernels/row_products.h"

#include <algorithm>
#include <array>

#include "models/kernels/fp8.h"

namespace epsim {
namespace {

void DecodeBf16(const uint16_t* bits, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) values[i] = FloatOfBf16(bits[i]);
}

void DecodeFp8(const uint8_t* bits, int64_t count, float* values) {
  static const auto kValues = [] {
    std::array<float, 256> table;
    for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = FloatOfFp8(static_cast<uint8_t>(i));
    return table;
  }();
  for (int64_t i = 0; i < count; ++i) values[i] = kValues[bits[i]];
}

void AddTile(const RowProducts::Tile& tile, float* sums) {
  constexpr int kLanes = RowProducts::kLanes;
  for (int r = 0; r < RowProducts::kWeightRows; ++r) {
    for (int t = 0; t < tile.token_count; ++t) {
      const float* weights = tile.weights + r * tile.count;
      const float* tokens = tile.tokens + t * tile.token_stride;
      float total[kLanes] = {};
      for (int64_t begin = 0, block = 0; begin < tile.count; begin += RowProducts::kBlock, ++block) {
        const int64_t end = std::min<int64_t>(begin + RowProducts::kBlock, tile.count);
        float sum[kLanes] = {};
        for (int64_t i = begin; i < end; i += kLanes) {
          for (int lane = 0; lane < kLanes; ++lane) sum[lane] += weights[i + lane] * tokens[i + lane];
        }
        const float scale = tile.weight_scales[r * tile.weight_scale_stride + block] *
                            tile.token_scales[t * tile.token_scale_stride + block];
        for (int lane = 0; lane < kLanes; ++lane) total[lane] += sum[lane] * scale;
      }
      for (int half = kLanes / 2; half > 0; half /= 2) {
        for (int lane = 0; lane < half; ++lane) total[lane] += total[lane + half];
      }
      sums[r * RowProducts::kTokens + t] += total[0];
    }
  }
}

}  // namespace

const RowProducts& PortableRowProducts() {
  static constexpr RowProducts kPortable = {DecodeBf16, DecodeFp8, AddTile};
  return kPortable;
}

const RowProducts& FastestRowProducts() {
  const RowProducts* avx2 = Avx2RowProducts();
  return avx2 == nullptr ? PortableRowProducts() : *avx2;
}

}  // namespace epsim
