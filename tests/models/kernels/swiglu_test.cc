#include "models/kernels/swiglu.h"

#include <cmath>
#include <vector>

#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(Swiglu, IsTheProductWithTheGatedSigmoid) {
  EXPECT_EQ(Swiglu(0, 3), 0);
  EXPECT_NEAR(Swiglu(1, 2), 2 / (1 + std::exp(-1.0)), 1e-6);
  EXPECT_NEAR(Swiglu(50, -2), -100, 1e-4);
  EXPECT_EQ(Swiglu(-200, 1e30f), 0) << "far to the left nothing passes, and nothing overflows";
}

// The largest of the block becomes 448, the others their share of it; what zeros become is zero.
TEST(Swiglu, QuantisesByTheLargest) {
  constexpr int kCount = 128;
  std::vector<uint16_t> gate(kCount, Bf16Of(100)), up(kCount, Bf16Of(1));
  up[7] = Bf16Of(-8);
  std::vector<uint8_t> out(kCount);
  const float scale = SwigluToFp8(gate.data(), up.data(), kCount, out.data());
  EXPECT_FLOAT_EQ(scale, 800.0f / 448);
  EXPECT_EQ(FloatOfFp8(out[7]), -448);
  EXPECT_EQ(FloatOfFp8(out[0]), 56);
  up.assign(kCount, 0);
  EXPECT_GT(SwigluToFp8(gate.data(), up.data(), kCount, out.data()), 0);
  EXPECT_EQ(out, std::vector<uint8_t>(kCount, 0));
}

}  // namespace
}  // namespace epsim
