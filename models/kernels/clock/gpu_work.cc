#include "models/kernels/clock/gpu_work.h"

#include "absl/strings/str_cat.h"

namespace epsim {

absl::StatusOr<std::unique_ptr<GpuWork>> NewGpuWork(const GpuDevice& gpu, const KernelWork& work) {
  switch (work.work_case()) {
    case KernelWork::kRouter:
      return NewRouterWork(work.router());
    case KernelWork::kExpertChoice:
      return NewExpertChoiceWork(work.expert_choice());
    case KernelWork::kExpertMlp:
      return NewExpertMlpWork(gpu, work.expert_mlp());
    case KernelWork::kGemm:
      return NewGemmWork(gpu, work.gemm());
    case KernelWork::kDeviceCopy:
      return NewDeviceCopyWork(work.device_copy());
    case KernelWork::kHostCopy:
      return NewHostCopyWork(work.host_copy());
    case KernelWork::kLaunch:
      return NewLaunchWork(work.launch());
    case KernelWork::kPermute:
      return NewPermuteWork(work.permute());
    case KernelWork::kCoOccurrence:
      return NewCoOccurrenceWork(work.co_occurrence());
    case KernelWork::kSampledLoad:
      return NewSampledLoadWork(work.sampled_load());
    case KernelWork::WORK_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a KernelWork that says no work");
}

}  // namespace epsim
