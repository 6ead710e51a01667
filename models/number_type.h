// How many bytes numbers take in each format, scales included: weights, activations, cache entries.
#pragma once

#include <cstdint>

#include "engine/units.h"
#include "models/number_type.pb.h"

namespace epsim {

// A weight matrix [rows, columns]; products sum over columns.  NUMBER_TYPE_DEFAULT is BF16.
//   BF16   2 * rows * columns
//   FP8    rows * columns + 4 * ceil(rows / 128) * ceil(columns / 128)   one float32 per 128 x 128 block (DeepSeek-V3)
//   MXFP8  rows * (columns + ceil(columns / 32))                         one byte per 32 values (OCP MX 1.0)
//   NVFP4  rows * (ceil(columns / 2) + ceil(columns / 16))               one e4m3 per 16 values: 4.5 bit
//   MXFP4  rows * (ceil(columns / 2) + ceil(columns / 32))               one byte per 32 values (OCP MX 1.0): 4.25 bit
Bytes WeightBytes(int64_t rows, int64_t columns, NumberType type);

// Consecutive activations or cache values of one token.  NUMBER_TYPE_DEFAULT is BF16.
//   BF16   2 * values
//   FP8    values + 4 * ceil(values / 128)        one float32 per 128: 7,392 B for 7,168 values, as DeepEP sends them
//   MXFP8  values + ceil(values / 32)
//   NVFP4  ceil(values / 2) + ceil(values / 16)   4,032 B for 7,168 values
//   MXFP4  ceil(values / 2) + ceil(values / 32)
Bytes ActivationBytes(int64_t values, NumberType type);

constexpr bool IsEightBit(NumberType type) { return type == FP8 || type == MXFP8; }
constexpr bool IsFourBit(NumberType type) { return type == NVFP4 || type == MXFP4; }

// The format that a product of two formats is computed in: the wider.  REQUIRES: neither is NUMBER_TYPE_DEFAULT.
NumberType Wider(NumberType a, NumberType b);

}  // namespace epsim
