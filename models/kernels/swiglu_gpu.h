// SwiGLU on the GPU, for the rows of many slots at once.
#pragma once

#include <cstdint>

#include "absl/status/status.h"

struct CUstream_st;

namespace epsim {

// Where the scales of one row go: that of its block b of 128 values to scales[first + b * stride].
struct ScalePlace {
  int64_t first = 0, stride = 0;
};

// In device memory, aligned to 16 bytes; `inter` a multiple of 16, to fp8 of 128.
struct SwigluRows {
  const uint16_t* gate_up = nullptr;  // [rows, 2 inter] in bf16
  int64_t rows = 0, inter = 0;
  const ScalePlace* places = nullptr;  // [rows]; null: the result is bf16.
  void* out = nullptr;                 // [rows, inter] in fp8 or bf16
  float* scales = nullptr;             // With `places` only.
};

// Launches on `stream`: out as SwigluToBf16 or SwigluToFp8 (swiglu.h) gives it, bit by bit.
absl::Status SwigluOnGpu(const SwigluRows& rows, CUstream_st* stream);

}  // namespace epsim
