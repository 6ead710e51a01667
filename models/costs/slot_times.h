// Who took the time: a rank's grouped GEMMs shared out to its slots, as a profiler would measure them in the kernel.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "models/costs/cost_model.h"

namespace epsim {

// Adds to picoseconds_of_slot[i] what slot i of a rank took.  With T the time of the rank's experts, F that of the
// kernels without tokens, and alone[i] = the time of slot i's tokens in kernels of their own - F (0 without tokens):
//   (T - F) * alone[i] / sum over slots of alone
// The floors are nobody's: T - F is shared out in full and nothing else.  Where no slot takes time alone, the tokens
// are the shares.  Times are those of a GPU as specified. `scale` as of CostModel::RoutedExperts.  The others [slots of
// the rank].
void AddSlotTimes(const CostModel& costs, absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale,
                  absl::Span<double> picoseconds_of_slot);

}  // namespace epsim
