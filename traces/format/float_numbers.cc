#include "traces/format/float_numbers.h"

#include <bit>
#include <cstdint>
#include <cstring>

#include "engine/check.h"

namespace epsim {
namespace {

// IEEE 754 binary16.  Exponent and fraction moved to their places in binary32 make a number that is 2^112 too small,
// denormal ones included; infinity and NaN keep the highest exponent.
float FromFloat16(uint16_t stored) {
  const uint32_t magnitude = (stored & 0x7fffu) << 13;
  const float value = std::bit_cast<float>(magnitude) * 0x1p112f;
  const uint32_t special = magnitude | 0x7f80'0000u;
  const uint32_t bits = (stored & 0x7c00u) == 0x7c00u ? special : std::bit_cast<uint32_t>(value);
  return std::bit_cast<float>(bits | (stored & 0x8000u) << 16);
}

// The upper half of binary32.
float FromBfloat16(uint16_t stored) { return std::bit_cast<float>(uint32_t{stored} << 16); }

template <typename Convert>
void FromHalves(const std::byte* stored, absl::Span<float> numbers, Convert convert) {
  for (size_t i = 0; i < numbers.size(); ++i) {
    uint16_t half;
    std::memcpy(&half, stored + 2 * i, sizeof(half));
    numbers[i] = convert(half);
  }
}

}  // namespace

void ToFloats(NumberFormat format, const std::byte* stored, absl::Span<float> numbers) {
  switch (format) {
    case FLOAT16:
      return FromHalves(stored, numbers, FromFloat16);
    case BFLOAT16:
      return FromHalves(stored, numbers, FromBfloat16);
    case FLOAT32:
      std::memcpy(numbers.data(), stored, numbers.size() * sizeof(float));
      return;
    case NUMBER_FORMAT_NONE:
    case NumberFormat_INT_MIN_SENTINEL_DO_NOT_USE_:
    case NumberFormat_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  EPSIM_CHECK(!"a format with numbers");
}

}  // namespace epsim
