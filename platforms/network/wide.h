// Four numbers at a time, for loops that are compiled twice: for every x86-64 machine and for those with AVX2.  The
// same operations in the same order, without contraction: the same results.
#pragma once

#include <cstdint>

namespace epsim {

using WideDouble = double __attribute__((vector_size(32)));
using WideInt = int64_t __attribute__((vector_size(32)));

#if defined(__x86_64__)
#define EPSIM_AVX2 gnu::target("avx2")
inline bool HasAvx2() { return __builtin_cpu_supports("avx2"); }
#else
#define EPSIM_AVX2 gnu::noinline
inline bool HasAvx2() { return false; }
#endif

}  // namespace epsim
