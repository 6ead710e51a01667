// Bytes of one token's activation on the wire.
#pragma once

#include "engine/units.h"
#include "models/costs/number_type.h"
#include "models/model.pb.h"

namespace epsim {

// One copy, scales included, without what a library adds of its own.
struct TokenBytes {
  Bytes dispatch, combine;
};

// REQUIRES: `precision` without defaults.
inline TokenBytes MakeTokenBytes(const ModelSpec& model, const Precision& precision) {
  return {ActivationBytes(model.hidden(), precision.dispatch()), ActivationBytes(model.hidden(), precision.combine())};
}

}  // namespace epsim
