#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/device_buffer.h"

namespace epsim {
namespace {

absl::Status CheckSize(uint64_t size_bytes) {
  if (size_bytes > 0 && size_bytes < uint64_t{1} << 40) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("size_bytes: ", size_bytes, " is not from 1 to 2^40 - 1"));
}

class CopyWithinDevice : public GpuWork {
 public:
  explicit CopyWithinDevice(int64_t bytes) : bytes_(bytes) {}
  int64_t set_bytes() const override { return 2 * bytes_; }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    for (int i = 0; i < sets; ++i) {
      Set set;
      ASSIGN_OR_RETURN(set.from, DeviceBuffer<uint8_t>::Allocate(bytes_));
      ASSIGN_OR_RETURN(set.to, DeviceBuffer<uint8_t>::Allocate(bytes_));
      RETURN_IF_ERROR(DrawFp8(set.from.data(), bytes_, static_cast<uint64_t>(i), timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random bytes");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    return CudaStatus(
        cudaMemcpyAsync(set.to.data(), set.from.data(), set.from.bytes(), cudaMemcpyDeviceToDevice, stream),
        "a copy in the GPU's memory");
  }

 private:
  struct Set {
    DeviceBuffer<uint8_t> from, to;
  };
  const int64_t bytes_;
  std::vector<Set> sets_;
};

class CopyOverPcie : public GpuWork {
 public:
  CopyOverPcie(int64_t bytes, bool to_device) : bytes_(bytes), to_device_(to_device) {}
  int64_t set_bytes() const override { return bytes_; }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    for (int i = 0; i < sets; ++i) {
      Set set;
      ASSIGN_OR_RETURN(set.device, DeviceBuffer<uint8_t>::Allocate(bytes_));
      RETURN_IF_ERROR(DrawFp8(set.device.data(), bytes_, static_cast<uint64_t>(i), timer.stream()));
      void* pinned = nullptr;
      RETURN_IF_ERROR(CudaStatus(cudaMallocHost(&pinned, static_cast<size_t>(bytes_)),
                                 absl::StrCat("pinned memory of ", bytes_, " bytes")));
      set.host.reset(pinned);
      RETURN_IF_ERROR(CudaStatus(
          cudaMemcpyAsync(pinned, set.device.data(), set.device.bytes(), cudaMemcpyDeviceToHost, timer.stream()),
          "random bytes"));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random bytes");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    if (to_device_) {
      return CudaStatus(
          cudaMemcpyAsync(set.device.data(), set.host.get(), set.device.bytes(), cudaMemcpyHostToDevice, stream),
          "a copy to the GPU");
    }
    return CudaStatus(
        cudaMemcpyAsync(set.host.get(), set.device.data(), set.device.bytes(), cudaMemcpyDeviceToHost, stream),
        "a copy from the GPU");
  }

 private:
  struct FreeHost {
    void operator()(void* pinned) const { cudaFreeHost(pinned); }
  };
  struct Set {
    DeviceBuffer<uint8_t> device;
    std::unique_ptr<void, FreeHost> host;
  };
  const int64_t bytes_;
  const bool to_device_;
  std::vector<Set> sets_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewDeviceCopyWork(const DeviceCopyWork& work) {
  RETURN_IF_ERROR(CheckSize(work.size_bytes()));
  return std::make_unique<CopyWithinDevice>(static_cast<int64_t>(work.size_bytes()));
}

absl::StatusOr<std::unique_ptr<GpuWork>> NewHostCopyWork(const HostCopyWork& work) {
  RETURN_IF_ERROR(CheckSize(work.size_bytes()));
  return std::make_unique<CopyOverPcie>(static_cast<int64_t>(work.size_bytes()), work.to_device());
}

}  // namespace epsim
