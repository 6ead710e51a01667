// Where the network's floating-point times become integers.
#pragma once

#include "engine/units.h"

namespace epsim {

// `picoseconds` after `origin`, rounded up.  Sums of rounded quotients may pass the picosecond they mean by their
// rounding errors, so what passes it by less than 2^-10 ps does not count; errors stay below that for transfers of up
// to an hour.  Never before `origin`, and at most kLongestStep after it.
inline SimTime RoundUpFrom(SimTime origin, double picoseconds) {
  const double less = picoseconds - 0x1p-10;
  if (!(less > 0)) return origin;
  if (less >= static_cast<double>(kLongestStep.count())) return origin + kLongestStep;
  const auto below = static_cast<int64_t>(less);
  return origin + Duration(below + (static_cast<double>(below) < less ? 1 : 0));
}

}  // namespace epsim
