// Bytes of one token's activation on the wire.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/units.h"
#include "models/costs/costs.pb.h"
#include "models/model.pb.h"
#include "models/number_type.h"

namespace epsim {

// One copy, scales included, without what a library adds of its own.
struct TokenBytes {
  Bytes dispatch, combine;
};

// REQUIRES: `precision` without defaults.
inline TokenBytes MakeTokenBytes(const ModelSpec& model, const Precision& precision) {
  return {ActivationBytes(model.hidden(), precision.dispatch()), ActivationBytes(model.hidden(), precision.combine())};
}

// The format that travels where `precision` asks for `wanted` and the library takes `formats` besides bf16: `wanted`,
// or else bf16, which a note to the reader then says.  `leg`: "dispatch" or "combine".
inline NumberType TravelFormat(std::string_view library, std::string_view leg, NumberType wanted,
                               std::initializer_list<NumberType> formats, std::vector<std::string>* notes) {
  if (wanted == BF16) return BF16;
  for (NumberType format : formats) {
    if (format == wanted) return wanted;
  }
  notes->push_back(absl::StrCat(absl::string_view(library.data(), library.size()), ": precision.",
                                absl::string_view(leg.data(), leg.size()), ": ", NumberType_Name(wanted),
                                " is not taken by its kernels; BF16 travels"));
  return BF16;
}

// What goes with each dispatched token besides its activation: the expert and the weight (int32, float32) of each of
// its top-k.
inline int64_t RoutingBytes(const ModelSpec& model) { return int64_t{8} * model.top_k(); }

}  // namespace epsim
