#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/sampled_load_gpu.h"

namespace epsim {
namespace {

// Reads nothing; all sets are one.
class SampledLoads : public GpuWork {
 public:
  explicit SampledLoads(const SampledLoadOptions& options) : options_(options) {}

  int64_t set_bytes() const override { return 0; }
  int64_t shared_bytes() const override { return kSums * static_cast<int64_t>(sizeof(unsigned long long)); }

  absl::Status Prepare(int /*sets*/, GraphTimer& /*timer*/) override {
    ASSIGN_OR_RETURN(sums_, DeviceBuffer<unsigned long long>::Allocate(kSums));
    return absl::OkStatus();
  }
  absl::Status Launch(int /*set*/, cudaStream_t stream) override {
    return LaunchSampledLoad(options_, sums_.data(), stream);
  }

 private:
  static constexpr int64_t kSums = 2;
  const SampledLoadOptions options_;
  DeviceBuffer<unsigned long long> sums_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewSampledLoadWork(const SampledLoadWork& work) {
  const SampledLoadOptions options = {.batches = work.batches(),
                                      .tokens = static_cast<int>(work.tokens()),
                                      .experts = static_cast<int>(work.experts()),
                                      .top_k = static_cast<int>(work.top_k()),
                                      .chips = static_cast<int>(work.chips())};
  RETURN_IF_ERROR(CanImplement(options));
  return std::make_unique<SampledLoads>(options);
}

}  // namespace epsim
