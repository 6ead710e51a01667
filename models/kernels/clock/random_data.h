// Random numbers in device memory, for kernels to work on: never zeros, on which they can run faster than on real data.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

struct CUstream_st;

namespace epsim {

// Each launches on `stream`; equal seeds give equal numbers.
// Uniform in [low, high).
absl::Status DrawFloats(float* values, int64_t count, float low, float high, uint64_t seed, CUstream_st* stream);
// The same, rounded to bf16.
absl::Status DrawBf16(uint16_t* values, int64_t count, float low, float high, uint64_t seed, CUstream_st* stream);
// Uniform in [-448, 448), rounded to fp8.
absl::Status DrawFp8(uint8_t* values, int64_t count, uint64_t seed, CUstream_st* stream);

}  // namespace epsim
