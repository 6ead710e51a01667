// Random numbers that are the same on every machine and in every library version: xoshiro256** 1.0 (Blackman, Vigna
// 2018) seeded by SplitMix64.  One named stream per consumer, so that a new consumer never shifts another's draws.
#pragma once

#include <cstdint>
#include <string_view>

namespace epsim {

class RandomStream {
 public:
  // Streams of one seed with different names are independent.
  RandomStream(uint64_t seed, std::string_view name);

  // Uniform over all 64-bit values.
  uint64_t Next();
  // Uniform in [0, bound), without bias (Lemire 2019).  REQUIRES: bound > 0.
  uint64_t Below(uint64_t bound);
  // Uniform in [0, 1), a multiple of 2^-53.
  double Unit() { return static_cast<double>(Next() >> 11) * 0x1p-53; }

  // As a UniformRandomBitGenerator, for algorithms that are themselves portable.
  using result_type = uint64_t;
  static constexpr uint64_t min() { return 0; }
  static constexpr uint64_t max() { return ~uint64_t{0}; }
  uint64_t operator()() { return Next(); }

 private:
  uint64_t state_[4];
};

}  // namespace epsim
