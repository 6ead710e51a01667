// Gate weights and scores as traces store them, two or four bytes a number, to floats.
#pragma once

#include <cstddef>

#include "absl/types/span.h"
#include "traces/format/trace.pb.h"

namespace epsim {

// numbers[i] = the i-th number at `stored`; exact, NaN and infinities included.  REQUIRES: `format` has numbers, and
// out.size() of them lie at `stored`, at any address.
void ToFloats(NumberFormat format, const std::byte* stored, absl::Span<float> numbers);

}  // namespace epsim
