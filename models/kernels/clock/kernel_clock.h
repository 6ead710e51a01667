// A stopwatch for kernels: executes what a KernelWork says as a serving engine would, and says how long it took.  The
// one on a GPU is in gpu_clock.h; whoever needs times takes this interface, so that tests can state them.
#pragma once

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/clock/kernel_work.pb.h"

namespace epsim {

class KernelClock {
 public:
  virtual ~KernelClock() = default;

  virtual const Hardware& hardware() const = 0;

  // Ok, or the reason why `work` cannot run here, with the figures: no number, a shape that the precision does not
  // allow, more memory than there is free.
  virtual absl::Status CanImplement(const KernelWork& work) const = 0;

  // The median over repeated runs on random data that rotate over buffers larger than the cache.  Fails as CanImplement
  // does, and when the device fails.
  virtual absl::StatusOr<KernelTime> Time(const KernelWork& work) = 0;
};

// Whether a clock's error says that the GPU cannot do the work, rather than that it failed.
inline bool IsRefusal(const absl::Status& status) {
  return absl::IsUnimplemented(status) || absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
         absl::IsResourceExhausted(status);
}

}  // namespace epsim
