// The GPU of a case that times kernels, and what they reach of it.
#pragma once

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_file.h"
#include "models/costs/roofline_kernel.h"
#include "models/timing/timing.pb.h"
#include "platforms/platform.pb.h"

namespace epsim {

class KernelTiming {
 public:
  // Fails with UnimplementedError on a platform that the catalogue does not have, on another metric than time_us and on
  // a library whose kernels are not modelled.
  static absl::StatusOr<KernelTiming> Create(const Case& measured);

  const GpuSpec& gpu() const { return gpu_; }
  RooflineConfig::GemmLibrary gemm_library() const { return catalogue_.gemm_library(); }
  // With the timing of the catalogue; what `timing` has, which may be null, takes its place.
  absl::StatusOr<GpuRates> Rates(const LibraryTiming* timing) const;

 private:
  GpuSpec gpu_;
  RooflineConfig catalogue_;
};

// The type of weights that a case calls "bf16", "fp8_block" (block scales), "nvfp4" and so on.
absl::StatusOr<NumberType> NumberTypeField(const Case& measured, const char* name);

}  // namespace epsim
