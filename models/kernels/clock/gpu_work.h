// One kind of work on the GPU, made ready to be timed: its buffers, in several sets so that what one launch has left in
// the cache is not what the next one reads, and its launches.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/clock/graph_timer.h"
#include "models/kernels/clock/kernel_work.pb.h"

namespace epsim {

class GpuWork {
 public:
  virtual ~GpuWork() = default;

  // Device memory of one set, and what all sets share.
  virtual int64_t set_bytes() const = 0;
  virtual int64_t shared_bytes() const { return 0; }

  // Allocates `sets` sets and fills the inputs with random numbers other than zero; the numbers are there when it
  // returns.  Called once, before launches.
  virtual absl::Status Prepare(int sets, GraphTimer& timer) = 0;

  // Launches the work once on set `set`, in `stream`; may be captured.
  virtual absl::Status Launch(int set, cudaStream_t stream) = 0;
};

// Each fails with the reason where the GPU cannot do the work, its memory apart.  `gpu` must outlive the work.
absl::StatusOr<std::unique_ptr<GpuWork>> NewRouterWork(const RouterWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewExpertChoiceWork(const ExpertChoiceWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewExpertMlpWork(const GpuDevice& gpu, const ExpertMlpWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewGemmWork(const GpuDevice& gpu, const GemmWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewPermuteWork(const PermuteWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewCoOccurrenceWork(const CoOccurrenceWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewSampledLoadWork(const SampledLoadWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewDeviceCopyWork(const DeviceCopyWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewHostCopyWork(const HostCopyWork& work);
absl::StatusOr<std::unique_ptr<GpuWork>> NewLaunchWork(const LaunchWork& work);

// The one of these that `work` asks for.
absl::StatusOr<std::unique_ptr<GpuWork>> NewGpuWork(const GpuDevice& gpu, const KernelWork& work);

}  // namespace epsim
