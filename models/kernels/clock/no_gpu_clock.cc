#include "models/kernels/clock/gpu_clock.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<KernelClock>> NewGpuClock(int /*device*/) {
  return absl::UnimplementedError("this build has no GPU kernels: configure with -DEPSIM_CUDA=ON");
}

}  // namespace epsim
