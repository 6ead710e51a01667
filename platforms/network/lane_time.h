// Where the network's floating-point times become integers.
#pragma once

#include <algorithm>

#include "engine/units.h"

namespace epsim {

// `picoseconds` after `origin`, rounded up.  Sums of rounded quotients may pass the picosecond they mean by their
// rounding errors, so what passes it by less than 2^-10 ps does not count; errors stay below that for transfers of up
// to an hour.  Never before `origin`, and at most kLongestStep after it.
inline SimTime RoundUpFrom(SimTime origin, double picoseconds) {
  return origin + RoundUpWithinStep(std::max(0.0, picoseconds - 0x1p-10));
}

}  // namespace epsim
