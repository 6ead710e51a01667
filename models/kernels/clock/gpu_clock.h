// The kernels of this folder on a CUDA GPU, timed with events.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "models/kernels/clock/kernel_clock.h"

namespace epsim {

// Fails where this build has no GPU kernels, where there is no GPU `device`, or where its driver is too old: the error
// says which, and what would do.
absl::StatusOr<std::unique_ptr<KernelClock>> NewGpuClock(int device);

}  // namespace epsim
