#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/empty_kernel.h"
#include "models/kernels/clock/gpu_work.h"

namespace epsim {
namespace {

constexpr uint32_t kMostKernels = 10'000;

class EmptyKernels : public GpuWork {
 public:
  explicit EmptyKernels(uint32_t kernels) : kernels_(kernels) {}
  int64_t set_bytes() const override { return 0; }
  absl::Status Prepare(int /*sets*/, GraphTimer& /*timer*/) override { return absl::OkStatus(); }
  absl::Status Launch(int /*set*/, cudaStream_t stream) override {
    for (uint32_t i = 0; i < kernels_; ++i) RETURN_IF_ERROR(LaunchEmptyKernel(stream));
    return absl::OkStatus();
  }

 private:
  const uint32_t kernels_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewLaunchWork(const LaunchWork& work) {
  if (work.kernels() < 1 || work.kernels() > kMostKernels) {
    return absl::InvalidArgumentError(absl::StrCat("kernels: ", work.kernels(), " is not from 1 to ", kMostKernels));
  }
  return std::make_unique<EmptyKernels>(work.kernels());
}

}  // namespace epsim
