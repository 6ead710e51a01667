// Measures works and keeps the times in a folder of calibration tables, one file for each kind of work.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/stop_token.h"
#include "models/kernels/clock/kernel_clock.h"

namespace epsim {

struct CalibrationRun {
  std::string folder;  // Made if need be.
  std::string date, epsim_version;
  StopToken stop;
  std::function<void(const std::string&)> log;  // Lines: what is not measured or failed, and why.
};

struct CalibrationCount {
  size_t measured = 0;
  size_t known = 0;    // Were in the folder.
  size_t refused = 0;  // The clock cannot execute them, as it says before or when it tries.
};

// Goes on where an earlier call ended: works that the folder holds are not measured again.  Every file is written
// whole, at the end of its kind and every few seconds before it, so that at any time the folder can be used.
// Interrupted, or where the device fails, what has been measured is kept.  A work that fails is logged and the others
// are measured; Unavailable at the end, or after three failures in a row: the device is lost.  Fails before measuring
// where the folder's tables are damaged or were measured on other hardware: the error names both.
absl::StatusOr<CalibrationCount> Calibrate(absl::Span<const KernelWork> works, KernelClock* clock,
                                           const CalibrationRun& run);

}  // namespace epsim
