// The functions that are the same on every machine, against libm and by hand; and the random numbers by counter.
#include "models/kernels/exact_float.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/philox.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

TEST(ExactFloat, ExpIsRightToTwoUnitsInTheLastPlace) {
  double worst = 0;
  for (float x = -87; x <= 88; x += 0.00137f) {
    const double exact = std::exp(double{x});
    worst = std::max(worst, std::abs(Exp(x) - exact) / (exact * 0x1p-23));
  }
  EXPECT_LT(worst, 2);
  EXPECT_GT(worst, 0.5);
}

TEST(ExactFloat, ExpAtItsEnds) {
  EXPECT_EQ(Exp(0), 1);
  EXPECT_EQ(Exp(-0.0f), 1);
  EXPECT_EQ(Exp(-87.1f), 0);
  EXPECT_EQ(Exp(-kInfinity), 0);
  EXPECT_EQ(Exp(88.1f), kInfinity);
  EXPECT_EQ(Exp(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(Exp(kNan)));
  EXPECT_EQ(Sigmoid(0), 0.5f);
  EXPECT_EQ(Sigmoid(kInfinity), 1);
  EXPECT_EQ(Sigmoid(-kInfinity), 0);
}

TEST(ExactFloat, OrderedBitsAreOrderedAsTheFloatsAre) {
  const float rising[] = {-kInfinity, -1e38f, -1, -1e-44f, 0, 1e-44f, 1, 1e38f, kInfinity};
  for (size_t i = 0; i + 1 < std::size(rising); ++i) {
    EXPECT_LT(OrderedBits(rising[i]), OrderedBits(rising[i + 1])) << rising[i];
    EXPECT_EQ(FloatOfOrdered(OrderedBits(rising[i])), rising[i]);
  }
  EXPECT_EQ(OrderedBits(-0.0f), OrderedBits(0.0f));
  EXPECT_LT(OrderedBits(kNan), OrderedBits(-kInfinity));
  EXPECT_EQ(OrderedBits(-kNan), OrderedBits(kNan));
  EXPECT_GT(OrderedBits(kNan), 0u);
  EXPECT_TRUE(std::isnan(FloatOfOrdered(OrderedBits(kNan))));
}

// 1 + 2^-8 lies between the bf16 numbers 1 and 1 + 2^-7, whose last bits are 0 and 1; 1 + 3 * 2^-8 likewise.
TEST(ExactFloat, Bf16RoundsToNearestEven) {
  EXPECT_EQ(FloatOfBf16(Bf16Of(1 + 0x1p-8f)), 1);
  EXPECT_EQ(FloatOfBf16(Bf16Of(1 + 0x1p-8f + 0x1p-20f)), 1 + 0x1p-7f);
  EXPECT_EQ(FloatOfBf16(Bf16Of(1 + 3 * 0x1p-8f)), 1 + 0x1p-6f);
  EXPECT_EQ(FloatOfBf16(Bf16Of(3.4e38f)), kInfinity);
  EXPECT_EQ(FloatOfBf16(Bf16Of(-kInfinity)), -kInfinity);
  EXPECT_TRUE(std::isnan(FloatOfBf16(Bf16Of(kNan))));
}

// Known answers of Philox 4x32-10 as its authors publish them.
TEST(Philox, KnownAnswers) {
  EXPECT_THAT(Philox({{0, 0, 0, 0}}, 0, 0).word, ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox({{~0u, ~0u, ~0u, ~0u}}, ~0u, ~0u).word,
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
}

}  // namespace
}  // namespace epsim
