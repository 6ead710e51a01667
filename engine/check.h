// CHECKs stay on in release builds: inside a run a wrong result is worse than a crash.
#pragma once

namespace epsim::internal {
[[noreturn]] void CheckFailed(const char* condition, const char* file, int line);
}  // namespace epsim::internal

// Ends the program, naming the condition and the place, unless `condition` holds.
#define EPSIM_CHECK(condition) \
  ((condition) ? static_cast<void>(0) : ::epsim::internal::CheckFailed(#condition, __FILE__, __LINE__))
