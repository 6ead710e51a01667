#include "engine/unit_text.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::HasSubstr;

int64_t Picoseconds(std::string_view text) {
  const auto value = ParseDuration(text);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->count() : -1;
}
int64_t Count(std::string_view text) {
  const auto value = ParseBytes(text);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->count() : -1;
}
int64_t PerSecond(std::string_view text) {
  const auto value = ParseBandwidth(text);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->count() : -1;
}
double Flops(std::string_view text) {
  const auto value = ParseComputeRate(text);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->count() : -1;
}
template <typename T>
std::string Error(const absl::StatusOr<T>& value) {
  EXPECT_EQ(value.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(value.status().message());
}

TEST(UnitTextTest, EveryUnitOfTime) {
  EXPECT_EQ(Picoseconds("3 ps"), 3);
  EXPECT_EQ(Picoseconds("3 ns"), 3'000);
  EXPECT_EQ(Picoseconds("3 us"), 3'000'000);
  EXPECT_EQ(Picoseconds("3 ms"), 3'000'000'000);
  EXPECT_EQ(Picoseconds("3 s"), 3'000'000'000'000);
}

TEST(UnitTextTest, EveryUnitOfSizeBinaryOnlyWhereWrittenSo) {
  EXPECT_EQ(Count("2 B"), 2);
  EXPECT_EQ(Count("2 kB"), 2'000);
  EXPECT_EQ(Count("2 MB"), 2'000'000);
  EXPECT_EQ(Count("80 GB"), 80'000'000'000);
  EXPECT_EQ(Count("2 TB"), 2'000'000'000'000);
  EXPECT_EQ(Count("2 PB"), 2'000'000'000'000'000);
  EXPECT_EQ(Count("2 KiB"), 2'048);
  EXPECT_EQ(Count("2 MiB"), 2'097'152);
  EXPECT_EQ(Count("80 GiB"), 85'899'345'920);
  EXPECT_EQ(Count("2 TiB"), 2'199'023'255'552);
}

TEST(UnitTextTest, EveryUnitOfBandwidthAndComputeRate) {
  EXPECT_EQ(PerSecond("7 B/s"), 7);
  EXPECT_EQ(PerSecond("7 kB/s"), 7'000);
  EXPECT_EQ(PerSecond("7 MB/s"), 7'000'000);
  EXPECT_EQ(PerSecond("450 GB/s"), 450'000'000'000);
  EXPECT_EQ(PerSecond("3.35 TB/s"), 3'350'000'000'000);
  EXPECT_EQ(Flops("5 GFLOP/s"), 5e9);
  EXPECT_EQ(Flops("989 TFLOP/s"), 989e12);
  EXPECT_EQ(Flops("9 PFLOP/s"), 9e15);
}

TEST(UnitTextTest, SpacesAndExponents) {
  EXPECT_EQ(Picoseconds("1.8us"), 1'800'000);
  EXPECT_EQ(Picoseconds("18e-1 us"), 1'800'000);
  EXPECT_EQ(Picoseconds("1.8E+0  us "), 1'800'000);
  EXPECT_EQ(Count("1e3 B"), 1'000);
  EXPECT_EQ(Picoseconds("0 s"), 0);
}

// 2.3 has no double; times 1e6 it must still be 2'300'000 and not, rounded up, one more.
TEST(UnitTextTest, DecimalFractionsAreMeantExactly) {
  for (int thousandths = 0; thousandths < 100'000; ++thousandths) {
    const std::string number = absl::StrCat(thousandths / 1000, ".", absl::StrCat(1000 + thousandths % 1000).substr(1));
    ASSERT_EQ(Picoseconds(number + " us"), thousandths * int64_t{1'000}) << number;
    ASSERT_EQ(Picoseconds(number + " ms"), thousandths * int64_t{1'000'000}) << number;
    ASSERT_EQ(Count(number + " GB"), thousandths * int64_t{1'000'000}) << number;
  }
}

TEST(UnitTextTest, FractionsOfAPicosecondRoundUp) {
  EXPECT_EQ(Picoseconds("0.1 ps"), 1);
  EXPECT_EQ(Picoseconds("1.0001 ns"), 1'001);
}

TEST(UnitTextTest, BareNumberIsAnError) {
  EXPECT_EQ(Error(ParseDuration("1.8")), "\"1.8\" has no unit; expected a time such as \"1.8 us\"");
  EXPECT_EQ(Error(ParseBytes("80")), "\"80\" has no unit; expected a size such as \"80 GB\"");
  EXPECT_EQ(Error(ParseBandwidth("450")), "\"450\" has no unit; expected a bandwidth such as \"450 GB/s\"");
  EXPECT_EQ(Error(ParseComputeRate("989")), "\"989\" has no unit; expected a compute rate such as \"989 TFLOP/s\"");
}

TEST(UnitTextTest, UnitOfAnotherDimensionIsAnError) {
  EXPECT_THAT(Error(ParseDuration("80 GB")), HasSubstr("\"80 GB\" has an unknown unit; expected a time"));
  EXPECT_THAT(Error(ParseBytes("80 GB/s")), HasSubstr("has an unknown unit; expected a size"));
  EXPECT_THAT(Error(ParseBandwidth("80 GB")), HasSubstr("has an unknown unit; expected a bandwidth"));
  EXPECT_THAT(Error(ParseComputeRate("80 TB/s")), HasSubstr("has an unknown unit; expected a compute rate"));
  EXPECT_THAT(Error(ParseBandwidth("450 Gb/s")), HasSubstr("unknown unit"));  // Bits.
  EXPECT_THAT(Error(ParseDuration("3 US")), HasSubstr("unknown unit"));
}

TEST(UnitTextTest, WhatIsNoQuantity) {
  for (const char* text : {"", " ", "us", "fast", "1.2.3 us", "1e us", "- us", "1e400 s", "inf s", "nan s", "0x10 s"}) {
    EXPECT_FALSE(ParseDuration(text).ok()) << text;
  }
  EXPECT_THAT(Error(ParseDuration("fast")), HasSubstr("\"fast\" is not a number with a unit"));
}

TEST(UnitTextTest, RangesAreChecked) {
  EXPECT_THAT(Error(ParseDuration("-1 us")), HasSubstr("\"-1 us\" is negative"));
  EXPECT_THAT(Error(ParseDuration("1e8 s")), HasSubstr("out of range for a time"));
  EXPECT_THAT(Error(ParseBytes("1e6 PB")), HasSubstr("out of range"));
  EXPECT_THAT(Error(ParseBytes("1.5 B")), HasSubstr("whole bytes"));
  EXPECT_THAT(Error(ParseBandwidth("0 GB/s")), HasSubstr("out of range for a bandwidth"));
  EXPECT_THAT(Error(ParseComputeRate("0 TFLOP/s")), HasSubstr("out of range for a compute rate"));
  EXPECT_THAT(Error(ParseComputeRate("1e300 PFLOP/s")), HasSubstr("out of range for a compute rate"));  // No double.
}

TEST(UnitTextTest, CheckUnitTextAsksForTheDimension) {
  EXPECT_TRUE(CheckUnitText(NO_UNIT, "anything").ok());
  EXPECT_TRUE(CheckUnitText(TIME, "1 s").ok());
  EXPECT_TRUE(CheckUnitText(SIZE, "1 B").ok());
  EXPECT_TRUE(CheckUnitText(BANDWIDTH, "1 B/s").ok());
  EXPECT_TRUE(CheckUnitText(COMPUTE_RATE, "1 TFLOP/s").ok());
  EXPECT_FALSE(CheckUnitText(TIME, "1 B").ok());
  EXPECT_FALSE(CheckUnitText(SIZE, "1 s").ok());
  EXPECT_FALSE(CheckUnitText(BANDWIDTH, "1 B").ok());
  EXPECT_FALSE(CheckUnitText(COMPUTE_RATE, "1 B/s").ok());
}

}  // namespace
}  // namespace epsim
