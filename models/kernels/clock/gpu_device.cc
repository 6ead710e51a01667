#include "models/kernels/clock/gpu_device.h"

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/nvml.h"
#include "models/kernels/cuda_status.h"

namespace epsim {
namespace {

std::string VersionText(int version) { return absl::StrCat(version / 1000, ".", version % 1000 / 10); }

// Within a major version, drivers run what newer runtimes build.
absl::Status CheckDriver() {
  int driver = 0;
  RETURN_IF_ERROR(CudaStatus(cudaDriverGetVersion(&driver), "cudaDriverGetVersion"));
  if (driver == 0) {
    return absl::FailedPreconditionError("there is no GPU: this machine has no NVIDIA driver (libcuda.so.1)");
  }
  if (driver / 1000 < CUDART_VERSION / 1000) {
    return absl::FailedPreconditionError(absl::StrCat("the NVIDIA driver is too old: it supports CUDA ",
                                                      VersionText(driver), ", this build needs CUDA ",
                                                      CUDART_VERSION / 1000, ".0: install a newer driver"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<GpuDevice>> GpuDevice::Open(int device) {
  RETURN_IF_ERROR(CheckDriver());
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaErrorNoDevice || (error == cudaSuccess && count == 0)) {
    return absl::FailedPreconditionError("there is no GPU: the NVIDIA driver finds none");
  }
  RETURN_IF_ERROR(CudaStatus(error, "cudaGetDeviceCount"));
  if (device < 0 || device >= count) {
    return absl::InvalidArgumentError(
        absl::StrCat("there is no GPU ", device, ": this machine has ", count, ", numbered from 0"));
  }
  RETURN_IF_ERROR(CudaStatus(cudaSetDevice(device), "cudaSetDevice"));
  cudaDeviceProp properties;
  RETURN_IF_ERROR(CudaStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
  if (properties.major < 8) {
    return absl::FailedPreconditionError(absl::StrCat(properties.name, " has compute capability ", properties.major,
                                                      ".", properties.minor, ": the kernels need 8.0 or later"));
  }
  std::unique_ptr<GpuDevice> result(new GpuDevice);
  result->device_ = device;
  ASSIGN_OR_RETURN(result->cublas_, CublasLibrary::Get());
  cublasLtHandle_t lt = nullptr;
  RETURN_IF_ERROR(result->cublas_->Status(result->cublas_->lt_create(&lt), "cublasLtCreate"));
  result->lt_ = {lt, result->cublas_->lt_destroy};

  char pci_bus_id[32] = {};
  RETURN_IF_ERROR(CudaStatus(cudaDeviceGetPCIBusId(pci_bus_id, sizeof(pci_bus_id), device), "cudaDeviceGetPCIBusId"));
  result->pci_bus_id_ = pci_bus_id;
  int runtime = 0;
  RETURN_IF_ERROR(CudaStatus(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion"));
  Hardware& hardware = result->hardware_;
  hardware.set_gpu(properties.name);
  hardware.set_compute_capability(static_cast<uint32_t>(10 * properties.major + properties.minor));
  hardware.set_sms(static_cast<uint32_t>(properties.multiProcessorCount));
  hardware.set_memory_bytes(properties.totalGlobalMem);
  hardware.set_l2_bytes(static_cast<uint64_t>(properties.l2CacheSize));
  hardware.set_driver(AskDriver(pci_bus_id).driver);
  hardware.set_cuda(VersionText(runtime));
  hardware.set_cublas(result->cublas_->version());
  return result;
}

absl::Status GpuDevice::MakeCurrent() const { return CudaStatus(cudaSetDevice(device_), "cudaSetDevice"); }

void GpuDevice::AskClocks() {
  const DriverFacts facts = AskDriver(pci_bus_id_);
  hardware_.set_sm_clock_mhz(facts.sm_clock_mhz);
  hardware_.set_memory_clock_mhz(facts.memory_clock_mhz);
}

absl::StatusOr<int64_t> GpuDevice::FreeBytes() const {
  size_t free = 0, total = 0;
  RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free, &total), "cudaMemGetInfo"));
  return static_cast<int64_t>(free);
}

}  // namespace epsim
