// Memory of the GPU that is current, given back when its owner goes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "models/kernels/cuda_status.h"

namespace epsim {

template <typename T>
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  // Room for `count` values, which are undefined.  ResourceExhausted where there is no such room.
  static absl::StatusOr<DeviceBuffer> Allocate(int64_t count) {
    DeviceBuffer buffer;
    if (count == 0) return buffer;
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    void* data = nullptr;
    const cudaError_t error = cudaMalloc(&data, bytes);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();  // It has been told; later calls start afresh.
      return absl::ResourceExhaustedError(absl::StrCat("the GPU has no ", bytes, " bytes of memory left"));
    }
    if (absl::Status status = CudaStatus(error, absl::StrCat("cudaMalloc of ", bytes, " bytes")); !status.ok()) {
      return status;
    }
    buffer.data_ = static_cast<T*>(data);
    buffer.count_ = count;
    return buffer;
  }
  ~DeviceBuffer() { cudaFree(data_); }
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), count_(std::exchange(other.count_, 0)) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(count_, other.count_);
    return *this;
  }

  T* data() const { return data_; }  // Null if there is nothing in it.
  int64_t size() const { return count_; }
  size_t bytes() const { return static_cast<size_t>(count_) * sizeof(T); }

 private:
  T* data_ = nullptr;
  int64_t count_ = 0;
};

// Waits until it is done, for any stream.  `values` has the buffer's size.
template <typename T>
absl::Status CopyToDevice(const T* values, const DeviceBuffer<T>& buffer) {
  if (buffer.size() == 0) return absl::OkStatus();
  cudaError_t error = cudaMemcpy(buffer.data(), values, buffer.bytes(), cudaMemcpyHostToDevice);
  // From pageable memory cudaMemcpy returns as soon as `values` is free again, and a stream that does not wait for the
  // default stream could run before the buffer is written.
  if (error == cudaSuccess) error = cudaStreamSynchronize(nullptr);
  return CudaStatus(error, "copy to the GPU");
}
template <typename T>
absl::Status CopyToHost(const DeviceBuffer<T>& buffer, T* values) {
  if (buffer.size() == 0) return absl::OkStatus();
  return CudaStatus(cudaMemcpy(values, buffer.data(), buffer.bytes(), cudaMemcpyDeviceToHost), "copy from the GPU");
}

}  // namespace epsim
