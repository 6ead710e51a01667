#include "models/kernels/row_products.h"

#include <vector>

#include "engine/random_stream.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/fp8.h"

namespace epsim {
namespace {

using ::testing::Each;
using ::testing::ElementsAreArray;

TEST(RowProducts, DecodesEveryNumber) {
  std::vector<uint8_t> fp8;
  std::vector<uint16_t> bf16;
  for (int i = 0; i < 256; ++i) {
    fp8.push_back(static_cast<uint8_t>((i & 0x7f) == 0x7f ? 0 : i));
    bf16.push_back(static_cast<uint16_t>(i * 127));
  }
  for (const RowProducts* kernel : {&PortableRowProducts(), &FastestRowProducts()}) {
    std::vector<float> values(256);
    kernel->decode_fp8(fp8.data(), 256, values.data());
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(values[i], FloatOfFp8(fp8[i])) << i;
    kernel->decode_bf16(bf16.data(), 256, values.data());
    for (size_t i = 0; i < 256; ++i) EXPECT_EQ(values[i], FloatOfBf16(bf16[i])) << i;
  }
}

// Whole numbers: two blocks of 128 and one of 16 of the values 1 + row and 1 + token, scaled by powers of two.
TEST(RowProducts, AddsScaledBlocks) {
  constexpr int kCount = 272, kBlocks = 3;
  std::vector<float> weights, tokens, weight_scales = {1, 2, 4, 8, 16, 32}, token_scales;
  for (int r = 0; r < 2; ++r) weights.insert(weights.end(), kCount, static_cast<float>(1 + r));
  for (int t = 0; t < 4; ++t) {
    tokens.insert(tokens.end(), kCount, static_cast<float>(1 + t));
    token_scales.insert(token_scales.end(), kBlocks, static_cast<float>(1 << t));
  }
  for (const RowProducts* kernel : {&PortableRowProducts(), &FastestRowProducts()}) {
    for (int count = 1; count <= 4; ++count) {
      std::vector<float> sums(8, 0.5f);
      kernel->add_tile({.weights = weights.data(),
                        .tokens = tokens.data(),
                        .token_stride = kCount,
                        .token_count = count,
                        .weight_scales = weight_scales.data(),
                        .token_scales = token_scales.data(),
                        .weight_scale_stride = kBlocks,
                        .token_scale_stride = kBlocks,
                        .count = kCount},
                       sums.data());
      for (int r = 0; r < 2; ++r) {
        const int blocks = (r == 0 ? 1 * 128 + 2 * 128 + 4 * 16 : 8 * 128 + 16 * 128 + 32 * 16) * (1 + r);
        for (int t = 0; t < 4; ++t) {
          const float expected = t < count ? static_cast<float>(blocks * (1 + t) * (1 << t)) + 0.5f : 0.5f;
          EXPECT_EQ(sums[static_cast<size_t>(4 * r + t)], expected) << r << " " << t << " of " << count;
        }
      }
    }
  }
}

TEST(RowProducts, EveryInstructionSetGivesTheSameBits) {
  const RowProducts* avx2 = Avx2RowProducts();
  if (avx2 == nullptr) GTEST_SKIP() << "this machine has no AVX2";
  constexpr int kCount = 400;
  RandomStream random(1, "row products");
  for (const bool fp8 : {false, true}) {
    const auto draw = [&](size_t count) {
      std::vector<float> values(count);
      for (float& value : values) {
        const auto drawn = static_cast<float>(random.Unit() - 0.5);
        value = fp8 ? FloatOfFp8(Fp8Of(drawn)) : FloatOfBf16(Bf16Of(drawn));
      }
      return values;
    };
    const std::vector<float> weights = draw(2 * kCount), tokens = draw(4 * kCount), scales = draw(6 * 4);
    std::vector<float> expected(8), sums(8);
    const RowProducts::Tile tile = {.weights = weights.data(),
                                    .tokens = tokens.data(),
                                    .token_stride = kCount,
                                    .token_count = 4,
                                    .weight_scales = scales.data(),
                                    .token_scales = scales.data() + 8,
                                    .weight_scale_stride = 4,
                                    .token_scale_stride = 4,
                                    .count = kCount};
    PortableRowProducts().add_tile(tile, expected.data());
    avx2->add_tile(tile, sums.data());
    EXPECT_THAT(sums, ElementsAreArray(expected));
    EXPECT_THAT(sums, Each(::testing::Ne(0.0f)));
  }
}

}  // namespace
}  // namespace epsim
