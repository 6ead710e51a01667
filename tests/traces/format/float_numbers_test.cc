// Numbers as traces store them.  Float16 is checked against its definition for every bit pattern.
#include "traces/format/float_numbers.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;

template <typename Stored>
std::vector<float> Floats(NumberFormat format, const std::vector<Stored>& stored) {
  // At an odd address.
  std::vector<std::byte> bytes(stored.size() * sizeof(Stored) + 1);
  std::memcpy(bytes.data() + 1, stored.data(), stored.size() * sizeof(Stored));
  std::vector<float> numbers(stored.size());
  ToFloats(format, bytes.data() + 1, absl::MakeSpan(numbers));
  return numbers;
}

// sign * 2^(exponent - 15) * (1 + fraction / 1024); sign * 2^-14 * fraction / 1024 where the exponent is 0.
TEST(ToFloats, EveryFloat16IsWhatTheStandardSays) {
  std::vector<uint16_t> stored;
  for (int bits = 0; bits < 65536; ++bits) stored.push_back(static_cast<uint16_t>(bits));
  const std::vector<float> numbers = Floats(FLOAT16, stored);
  for (int bits = 0; bits < 65536; ++bits) {
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float number = numbers[static_cast<size_t>(bits)];
    ASSERT_EQ(std::signbit(number), bits >> 15 == 1) << bits;
    if (exponent == 31) {
      ASSERT_EQ(std::isinf(number), fraction == 0) << bits;
      ASSERT_EQ(std::isnan(number), fraction != 0) << bits;
      continue;
    }
    const double magnitude =
        exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1 + fraction / 1024.0, exponent - 15);
    ASSERT_EQ(std::fabs(number), magnitude) << bits;
  }
}

TEST(ToFloats, Bfloat16IsTheUpperHalfOfFloat32) {
  EXPECT_THAT(Floats<uint16_t>(BFLOAT16, {0x3f80, 0xc049, 0x0001, 0x7f80}),
              ElementsAre(1.0f, -3.140625f, 0x1p-133f, std::numeric_limits<float>::infinity()));
  EXPECT_TRUE(std::isnan(Floats<uint16_t>(BFLOAT16, {0x7fc0})[0]));
}

TEST(ToFloats, Float32IsItself) {
  EXPECT_THAT(Floats<float>(FLOAT32, {1.5f, -0x1p-149f}), ElementsAre(1.5f, -0x1p-149f));
}

}  // namespace
}  // namespace epsim
