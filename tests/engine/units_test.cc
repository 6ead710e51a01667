#include "engine/units.h"

#include <type_traits>

#include "engine/ids.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

// A quantity of one dimension must not pass for another, nor an id for another or for a number.
static_assert(!std::is_convertible_v<int64_t, Bytes> && !std::is_convertible_v<Bytes, BytesPerSecond>);
static_assert(!std::is_convertible_v<Slot, LogicalExpert> && !std::is_convertible_v<Rank, int>);
static_assert(!std::is_convertible_v<SimTime, Duration>);

// 1 byte at 3 B/s is 333'333'333'333 and a third: rounded up.
TEST(UnitsTest, TransferTimeIsExactAndRoundedUp) {
  EXPECT_EQ(Bytes(450) / BytesPerSecond(450'000'000'000), Duration(1'000));
  EXPECT_EQ(Bytes(1) / BytesPerSecond(3), Duration(333'333'333'334));
  EXPECT_EQ(Bytes(0) / BytesPerSecond(3), Duration(0));
  // 9e15 B x 1e12 ps/s passes 2^63 on the way.
  EXPECT_EQ(Bytes(9'000'000'000'000'000) / BytesPerSecond(9'000'000'000'000), Duration(1'000'000'000'000'000));
}

TEST(UnitsTest, CostsAreRoundedUpWhereTheyBecomeTime) {
  EXPECT_EQ(RoundUpPicoseconds(0.0), Duration(0));
  EXPECT_EQ(RoundUpPicoseconds(41.0), Duration(41));
  EXPECT_EQ(RoundUpPicoseconds(41.001), Duration(42));
  EXPECT_EQ(RoundUpSeconds(1.5e-6), Duration(1'500'000));
}

// 10 minutes are 6e14 ps.
TEST(UnitsTest, TimesWithinAStepAreCutOffAtTheLongest) {
  EXPECT_EQ(RoundUpWithinStep(41.001), Duration(42));
  EXPECT_EQ(RoundUpWithinStep(599'999'999'999'999.0), Duration(599'999'999'999'999));
  EXPECT_EQ(RoundUpWithinStep(600'000'000'000'001.0), Duration(600'000'000'000'000));
  EXPECT_EQ(RoundUpWithinStep(1e300), kLongestStep);
  EXPECT_EQ(kLongestStep, Duration(600'000'000'000'000));
}

TEST(UnitsTest, BytesAddAndScale) {
  Bytes sum = Bytes(3) + Bytes(4) * 5 - Bytes(1);
  sum += Bytes(8);
  EXPECT_EQ(sum, Bytes(30));
  EXPECT_LT(Bytes(29), sum);
}

TEST(UnitsTest, ReadingTimes) {
  EXPECT_DOUBLE_EQ(Microseconds(Duration(1'800'000)), 1.8);
  EXPECT_DOUBLE_EQ(Seconds(Duration(1'800'000)), 1.8e-6);
  EXPECT_EQ(std::chrono::microseconds(2), Duration(2'000'000));
}

TEST(UnitsDeathTest, ACostIsANonNegativeNumber) {
  EXPECT_DEATH(RoundUpPicoseconds(-0.5), "picoseconds >= 0");
  EXPECT_DEATH(RoundUpPicoseconds(std::nan("")), "picoseconds >= 0");
  EXPECT_DEATH(RoundUpPicoseconds(1e19), "picoseconds < 9.2e18");
  EXPECT_DEATH(RoundUpWithinStep(-0.5), "picoseconds >= 0");
  EXPECT_DEATH(RoundUpWithinStep(std::nan("")), "picoseconds >= 0");
}

// 1e7 bytes at one a second are 1e19 ps, beyond 2^63.
TEST(UnitsDeathTest, ATransferTimeFitsTheClock) {
  EXPECT_DEATH(Bytes(10'000'000) / BytesPerSecond(1), "max");
  EXPECT_DEATH(Bytes(1) / BytesPerSecond(0), "rate.count\\(\\) > 0");
}

}  // namespace
}  // namespace epsim
