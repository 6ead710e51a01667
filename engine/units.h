// Quantities the simulator computes with.  Every dimension is its own type, so a unit error is a compile error.
// Decimal throughout: 1 GB/s is 1e9 bytes per second.
#pragma once

#include <chrono>
#include <cmath>
#include <compare>
#include <cstdint>
#include <limits>

#include "engine/check.h"

namespace epsim {

// Simulated time: integer picoseconds.  Range +-106 days.
using Duration = std::chrono::duration<int64_t, std::pico>;
struct SimClock {
  using duration = Duration;
  using rep = Duration::rep;
  using period = Duration::period;
  using time_point = std::chrono::time_point<SimClock>;
  static constexpr bool is_steady = true;
};
using SimTime = SimClock::time_point;

constexpr double Seconds(Duration d) { return static_cast<double>(d.count()) * 1e-12; }
constexpr double Microseconds(Duration d) { return static_cast<double>(d.count()) * 1e-6; }

// Costs are computed in floating point and rounded up once, here, where they become time.
// REQUIRES: 0 <= picoseconds < 2^63.
inline Duration RoundUpPicoseconds(double picoseconds) {
  EPSIM_CHECK(picoseconds >= 0 && picoseconds < 9.2e18);
  return Duration(static_cast<int64_t>(std::ceil(picoseconds)));
}
inline Duration RoundUpSeconds(double seconds) { return RoundUpPicoseconds(seconds * 1e12); }

// No kernel, transfer or whole step is simulated to take longer.  What would is cut off here, so that sums of times
// stay within range, and whoever runs steps refuses one that lasts as long: a result never holds a time that was cut
// off.
inline constexpr Duration kLongestStep = std::chrono::minutes(10);
// As RoundUpPicoseconds, at most kLongestStep.  REQUIRES: picoseconds >= 0.
inline Duration RoundUpWithinStep(double picoseconds) {
  constexpr auto kLongest = static_cast<double>(kLongestStep.count());
  return RoundUpPicoseconds(picoseconds > kLongest ? kLongest : picoseconds);
}

class Bytes {
 public:
  constexpr Bytes() = default;
  constexpr explicit Bytes(int64_t count) : count_(count) {}
  constexpr int64_t count() const { return count_; }
  constexpr Bytes& operator+=(Bytes other) { return count_ += other.count_, *this; }
  friend constexpr auto operator<=>(Bytes, Bytes) = default;
  friend constexpr Bytes operator+(Bytes a, Bytes b) { return Bytes(a.count_ + b.count_); }
  friend constexpr Bytes operator-(Bytes a, Bytes b) { return Bytes(a.count_ - b.count_); }
  friend constexpr Bytes operator*(Bytes a, int64_t k) { return Bytes(a.count_ * k); }

 private:
  int64_t count_ = 0;
};

class BytesPerSecond {
 public:
  constexpr BytesPerSecond() = default;
  constexpr explicit BytesPerSecond(int64_t count) : count_(count) {}
  constexpr int64_t count() const { return count_; }
  friend constexpr auto operator<=>(BytesPerSecond, BytesPerSecond) = default;

 private:
  int64_t count_ = 0;
};

// Floating-point (tensor core) operations per second.
class FlopsPerSecond {
 public:
  constexpr FlopsPerSecond() = default;
  constexpr explicit FlopsPerSecond(double count) : count_(count) {}
  constexpr double count() const { return count_; }
  friend constexpr auto operator<=>(FlopsPerSecond, FlopsPerSecond) = default;

 private:
  double count_ = 0;
};

// Time to move `size` at `rate`, rounded up to the next picosecond.  REQUIRES: size >= 0, rate > 0, and the time is
// less than 2^63 ps.
constexpr Duration operator/(Bytes size, BytesPerSecond rate) {
  EPSIM_CHECK(size.count() >= 0 && rate.count() > 0);
  const __int128 ps = (static_cast<__int128>(size.count()) * 1'000'000'000'000 + rate.count() - 1) / rate.count();
  EPSIM_CHECK(ps <= std::numeric_limits<int64_t>::max());
  return Duration(static_cast<int64_t>(ps));
}

}  // namespace epsim
