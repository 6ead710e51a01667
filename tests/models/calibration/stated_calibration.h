// Calibrations that a stated clock gives, in memory or in a folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/calibration/calibrate.h"
#include "models/calibration/calibration_plan.h"
#include "models/calibration/calibration_table.h"
#include "models/catalogue.h"
#include "platforms/platform.pb.h"
#include "tests/models/calibration/stated_clock.h"

namespace epsim {

// What `epsim calibrate` would find for `models` on `gpu`.
inline Calibration StatedCalibration(const std::vector<ModelSpec>& models, const StatedGpu& gpu = {}) {
  StatedClock clock(gpu);
  Calibration calibration;
  calibration.place = "stated";
  calibration.hardware = clock.hardware();
  for (const KernelWork& work : PlanCalibration({.models = models, .traced = {}, .quick = false})) {
    if (!clock.CanImplement(work).ok()) continue;
    Measurement& measurement = calibration.measurements.emplace_back();
    *measurement.mutable_work() = work;
    *measurement.mutable_time() = *clock.Time(work);
  }
  return calibration;
}

// The same, as a folder of tables.
inline absl::Status WriteStatedCalibration(const std::vector<ModelSpec>& models, const std::string& folder,
                                           const StatedGpu& gpu = {}) {
  StatedClock clock(gpu);
  return Calibrate(PlanCalibration({.models = models, .traced = {}, .quick = false}), &clock,
                   {.folder = folder,
                    .date = "2026-11-29",
                    .epsim_version = "test",
                    .stop = {},
                    .log = [](const std::string&) {}})
      .status();
}

inline GpuSpec H200() {
  GpuSpec gpu;
  gpu.set_name("NVIDIA H200 141 GB SXM");
  gpu.set_memory("141 GiB");
  gpu.set_memory_bandwidth("4.8 TB/s");
  gpu.set_bf16("989 TFLOP/s");
  gpu.set_fp8("1978 TFLOP/s");
  gpu.set_sms(132);
  return gpu;
}

}  // namespace epsim
