#include "models/costs/token_curve.h"

#include <algorithm>
#include <cmath>

#include "gtest/gtest.h"

namespace epsim {
namespace {

// The same for any tokens.
TokenDemand Demand(double picoseconds) { return {.fixed = picoseconds}; }

TEST(TokenCurve, SaysWhatWasMeasuredWhereItWas) {
  TokenCurve curve(10);
  curve.Add(4, 100, 210);
  curve.Add(1, 100, 110);
  EXPECT_DOUBLE_EQ(curve.At(1, Demand(100)).picoseconds, 110);
  EXPECT_DOUBLE_EQ(curve.At(4, Demand(100)).picoseconds, 210);
  EXPECT_TRUE(curve.At(4, Demand(100)).inside);
}

// Between factors 1 and 2 at 1 and 4 tokens lies sqrt(2) at 2: 10 + 100 * sqrt(2).
TEST(TokenCurve, InterpolatesTheUtilisationInLogarithms) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  curve.Add(4, 100, 210);
  EXPECT_NEAR(curve.At(2, Demand(100)).picoseconds, 10 + 100 * std::sqrt(2), 1e-9);
  EXPECT_TRUE(curve.At(2, Demand(100)).inside);
}

// At 4 tokens half of the peak was reached: whatever is asked beyond takes twice its demand.
TEST(TokenCurve, KeepsTheUtilisationOutside) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  curve.Add(4, 100, 210);
  EXPECT_NEAR(curve.At(4000, Demand(5000)).picoseconds, 10 + 2 * 5000, 1e-9);
  EXPECT_FALSE(curve.At(4000, Demand(5000)).inside);
  EXPECT_NEAR(curve.At(0.5, Demand(70)).picoseconds, 10 + 70, 1e-9);
  EXPECT_FALSE(curve.At(0.5, Demand(70)).inside);
}

// Reading takes 100 up to 10 tokens, computing as long from there on, 1000 at 100 tokens.  Measured are twice 100 at 1
// token and 0.23 times 1000 at 100: utilisation rises from the first token on, the demand only from the tenth.
TEST(TokenCurve, StaysBetweenTheMeasurements) {
  const TokenDemand demand = {.fixed = 100, .token = 0, .compute = 10};
  TokenCurve curve(10);
  curve.Add(1, demand.Picoseconds(1), 210);
  curve.Add(100, demand.Picoseconds(100), 240);
  double least = 1e9;
  for (double tokens = 1; tokens <= 100; ++tokens) {
    least = std::min(least, curve.At(tokens, demand).picoseconds);
    EXPECT_LE(curve.At(tokens, demand).picoseconds, 240 + 1e-9);
  }
  EXPECT_NEAR(least, 210, 1e-9);
}

TEST(TokenCurve, WithoutTokensTheFloorRemains) {
  TokenCurve curve(10);
  curve.Add(1, 100, 110);
  EXPECT_EQ(curve.At(0, Demand(0)).picoseconds, 10);
  EXPECT_TRUE(curve.At(0, Demand(0)).inside);
}

// Noise may measure less than the floor; time still grows with the work.
TEST(TokenCurve, AMeasurementBelowTheFloorIsALittleMoreThanIt) {
  TokenCurve curve(10);
  curve.Add(1, 1, 9);
  EXPECT_NEAR(curve.At(1, Demand(1)).picoseconds, 10 + 0.02 * 9, 1e-9);
}

TEST(TokenCurve, TheLastMeasurementOfTheSameTokensCounts) {
  TokenCurve curve(0);
  curve.Add(8, 100, 150);
  curve.Add(8, 100, 300);
  EXPECT_NEAR(curve.At(8, Demand(100)).picoseconds, 300, 1e-9);
}

}  // namespace
}  // namespace epsim
