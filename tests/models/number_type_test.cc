#include "models/number_type.h"

#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(NumberTypeTest, WeightsCarryAScaleForEveryBlockBegun) {
  EXPECT_EQ(WeightBytes(256, 384, BF16).count(), 2 * 256 * 384);
  EXPECT_EQ(WeightBytes(256, 384, NUMBER_TYPE_DEFAULT).count(), 2 * 256 * 384);
  // 2 x 3 blocks of 128 x 128.
  EXPECT_EQ(WeightBytes(256, 384, FP8).count(), 256 * 384 + 4 * 6);
  EXPECT_EQ(WeightBytes(257, 385, FP8).count(), 257 * 385 + 4 * 3 * 4);
  // 192 bytes of nibbles and 12 scales a row.
  EXPECT_EQ(WeightBytes(256, 384, MXFP4).count(), 256 * (192 + 12));
  EXPECT_EQ(WeightBytes(2, 33, MXFP4).count(), 2 * (17 + 2));
  // A byte a value and 12 scales a row; a 33rd value begins a second block.
  EXPECT_EQ(WeightBytes(256, 384, MXFP8).count(), 256 * (384 + 12));
  EXPECT_EQ(WeightBytes(2, 33, MXFP8).count(), 2 * (33 + 2));
  // Twice as many scales as MXFP4, of 16 values each.
  EXPECT_EQ(WeightBytes(256, 384, NVFP4).count(), 256 * (192 + 24));
  EXPECT_EQ(WeightBytes(2, 33, NVFP4).count(), 2 * (17 + 3));
}

TEST(NumberTypeTest, ActivationsAsDeepEpSendsThem) {
  EXPECT_EQ(ActivationBytes(7168, BF16).count(), 14'336);
  EXPECT_EQ(ActivationBytes(7168, FP8).count(), 7'392);    // 7168 + 56 x 4.
  EXPECT_EQ(ActivationBytes(7168, MXFP4).count(), 3'808);  // 3584 + 224.
  EXPECT_EQ(ActivationBytes(7168, MXFP8).count(), 7'392);  // 7168 + 224.
  EXPECT_EQ(ActivationBytes(7168, NVFP4).count(), 4'032);  // 3584 + 448.
  EXPECT_EQ(ActivationBytes(129, FP8).count(), 129 + 8);
  EXPECT_EQ(ActivationBytes(129, MXFP8).count(), 129 + 5);
  EXPECT_EQ(ActivationBytes(129, NVFP4).count(), 65 + 9);
}

TEST(NumberTypeTest, WidthsOfTheTypes) {
  EXPECT_TRUE(IsEightBit(FP8) && IsEightBit(MXFP8));
  EXPECT_FALSE(IsEightBit(BF16) || IsEightBit(NVFP4) || IsEightBit(MXFP4));
  EXPECT_TRUE(IsFourBit(NVFP4) && IsFourBit(MXFP4));
  EXPECT_FALSE(IsFourBit(BF16) || IsFourBit(FP8) || IsFourBit(MXFP8));
}

TEST(NumberTypeTest, ProductsAreComputedInTheWiderType) {
  EXPECT_EQ(Wider(MXFP4, BF16), BF16);
  EXPECT_EQ(Wider(FP8, MXFP4), FP8);
  EXPECT_EQ(Wider(FP8, FP8), FP8);
  EXPECT_EQ(Wider(MXFP4, MXFP8), MXFP8);
  EXPECT_EQ(Wider(NVFP4, BF16), BF16);
}

}  // namespace
}  // namespace epsim
