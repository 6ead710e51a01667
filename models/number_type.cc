#include "models/number_type.h"

#include <algorithm>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

Bytes WeightBytes(int64_t rows, int64_t columns, NumberType type) {
  switch (type) {
    case NUMBER_TYPE_DEFAULT:
    case BF16:
      return Bytes(2 * rows * columns);
    case FP8:
      return Bytes(rows * columns + 4 * DivideUp(rows, 128) * DivideUp(columns, 128));
    case MXFP8:
      return Bytes(rows * (columns + DivideUp(columns, 32)));
    case NVFP4:
      return Bytes(rows * (DivideUp(columns, 2) + DivideUp(columns, 16)));
    case MXFP4:
      return Bytes(rows * (DivideUp(columns, 2) + DivideUp(columns, 32)));
    case NumberType_INT_MIN_SENTINEL_DO_NOT_USE_:
    case NumberType_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  EPSIM_CHECK(!"a known number type");
  __builtin_unreachable();
}

Bytes ActivationBytes(int64_t values, NumberType type) {
  switch (type) {
    case NUMBER_TYPE_DEFAULT:
    case BF16:
      return Bytes(2 * values);
    case FP8:
      return Bytes(values + 4 * DivideUp(values, 128));
    case MXFP8:
      return Bytes(values + DivideUp(values, 32));
    case NVFP4:
      return Bytes(DivideUp(values, 2) + DivideUp(values, 16));
    case MXFP4:
      return Bytes(DivideUp(values, 2) + DivideUp(values, 32));
    case NumberType_INT_MIN_SENTINEL_DO_NOT_USE_:
    case NumberType_INT_MAX_SENTINEL_DO_NOT_USE_:
      break;
  }
  EPSIM_CHECK(!"a known number type");
  __builtin_unreachable();
}

NumberType Wider(NumberType a, NumberType b) {
  EPSIM_CHECK(a != NUMBER_TYPE_DEFAULT && b != NUMBER_TYPE_DEFAULT);
  static_assert(BF16 < FP8 && FP8 < MXFP8 && MXFP8 < NVFP4 && NVFP4 < MXFP4);
  return std::min(a, b);
}

}  // namespace epsim
