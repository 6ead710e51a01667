// Which instructions the CPU twins are executed with.  Every set gives the same results.
#pragma once

namespace epsim {

enum class VectorSet {
  kFastest,   // That this machine has: AVX2, or the compiler's baseline.
  kPortable,  // The baseline, for tests.
};

// Whether AVX2 is to be used, with POPCNT and BMI.
inline bool UseAvx2(VectorSet set) {
#if defined(__x86_64__)
  static const bool has =
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi");
  return has && set == VectorSet::kFastest;
#else
  return set == VectorSet::kFastest && false;
#endif
}

}  // namespace epsim
