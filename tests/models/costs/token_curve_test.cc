#include "models/costs/token_curve.h"

#include <cmath>

#include "gtest/gtest.h"

namespace epsim {
namespace {

TEST(TokenCurve, SaysWhatWasMeasuredWhereItWas) {
  TokenCurve curve(10);
  curve.Add(4, 100, 210);
  curve.Add(1, 100, 110);
  EXPECT_DOUBLE_EQ(curve.At(1, 100).picoseconds, 110);
  EXPECT_DOUBLE_EQ(curve.At(4, 100).picoseconds, 210);
  EXPECT_TRUE(curve.At(4, 100).inside);
}

// Between factors 1 and 2 at 1 and 4 tokens lies sqrt(2) at 2: 10 + 100 * sqrt(2).
TEST(TokenCurve, InterpolatesTheUtilisationInLogarithms) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  curve.Add(4, 100, 210);
  EXPECT_NEAR(curve.At(2, 100).picoseconds, 10 + 100 * std::sqrt(2), 1e-9);
  EXPECT_TRUE(curve.At(2, 100).inside);
}

// At 4 tokens half of the peak was reached: whatever is asked beyond takes twice its demand.
TEST(TokenCurve, KeepsTheUtilisationOutside) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  curve.Add(4, 100, 210);
  EXPECT_NEAR(curve.At(4000, 5000).picoseconds, 10 + 2 * 5000, 1e-9);
  EXPECT_FALSE(curve.At(4000, 5000).inside);
  EXPECT_NEAR(curve.At(0.5, 70).picoseconds, 10 + 70, 1e-9);
  EXPECT_FALSE(curve.At(0.5, 70).inside);
}

TEST(TokenCurve, WithoutTokensTheFloorRemains) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  EXPECT_EQ(curve.At(0, 0).picoseconds, 10);
  EXPECT_TRUE(curve.At(0, 0).inside);
}

// Noise may measure less than the floor; time still grows with the work.
TEST(TokenCurve, AMeasurementBelowTheFloorIsALittleMoreThanIt) {
  TokenCurve curve(10);
  curve.Add(1, 1, 9);
  EXPECT_NEAR(curve.At(1, 1).picoseconds, 10 + 0.02 * 9, 1e-9);
}

TEST(TokenCurve, TheLastMeasurementOfTheSameTokensCounts) {
  TokenCurve curve(0);
  curve.Add(8, 100, 150);
  curve.Add(8, 100, 300);
  EXPECT_NEAR(curve.At(8, 100).picoseconds, 300, 1e-9);
}

}  // namespace
}  // namespace epsim
