#include "models/kernels/fp8.h"

#include <cmath>
#include <limits>

#include "gtest/gtest.h"

namespace epsim {
namespace {

// e4m3: (-1)^s 2^(e - 7) (1 + m / 8), and (-1)^s 2^-6 m / 8 for e = 0.
TEST(Fp8, StandsForWhatTheFormatSays) {
  for (int bits = 0; bits < 256; ++bits) {
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    const float value = FloatOfFp8(static_cast<uint8_t>(bits));
    if ((bits & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      continue;
    }
    const double magnitude = exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
    EXPECT_EQ(value, bits < 128 ? magnitude : -magnitude) << bits;
    EXPECT_EQ(Fp8Of(value), bits);
  }
  EXPECT_EQ(FloatOfFp8(0x7e), kLargestFp8);
}

// Between two neighbours the nearer is taken, half-way the one whose last bit is zero.
TEST(Fp8, RoundsToTheNearest) {
  for (int bits = 0; bits < 0x7e; ++bits) {
    const float low = FloatOfFp8(static_cast<uint8_t>(bits)), high = FloatOfFp8(static_cast<uint8_t>(bits + 1));
    const float middle = (low + high) / 2;
    EXPECT_EQ(Fp8Of(middle), bits % 2 == 0 ? bits : bits + 1) << bits;
    EXPECT_EQ(Fp8Of(std::nextafter(middle, 0.0f)), bits) << bits;
    EXPECT_EQ(Fp8Of(std::nextafter(middle, 1000.0f)), bits + 1) << bits;
    EXPECT_EQ(Fp8Of(-std::nextafter(middle, 1000.0f)), bits + 129) << bits;
  }
}

TEST(Fp8, Saturates) {
  for (const float large : {449.0f, 480.0f, 1e30f, std::numeric_limits<float>::infinity()}) {
    EXPECT_EQ(Fp8Of(large), 0x7e);
    EXPECT_EQ(Fp8Of(-large), 0xfe);
  }
  EXPECT_TRUE(std::isnan(FloatOfFp8(Fp8Of(std::nanf("")))));
}

}  // namespace
}  // namespace epsim
