// A GPU that kernels are executed on: what it is, and the libraries that it needs.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "models/kernels/clock/kernel_work.pb.h"
#include "models/kernels/cublas_library.h"

namespace epsim {

class GpuDevice {
 public:
  // Makes GPU `device` the current one of this thread.  The error says whether there is no driver, one that is too old,
  // no such GPU, or no cuBLAS.
  static absl::StatusOr<std::unique_ptr<GpuDevice>> Open(int device);

  // What CUDA calls of this thread mean from now on.
  absl::Status MakeCurrent() const;

  int compute_capability() const { return static_cast<int>(hardware_.compute_capability()); }  // 90 for 9.0.
  int64_t l2_bytes() const { return static_cast<int64_t>(hardware_.l2_bytes()); }
  const CublasLibrary& cublas() const { return *cublas_; }
  cublasLtHandle_t lt() const { return lt_.get(); }

  // All but the clocks, which are zero until they have been asked for.
  const Hardware& hardware() const { return hardware_; }
  // Takes the clocks of this moment.
  void AskClocks();

  // Of its memory.
  absl::StatusOr<int64_t> FreeBytes() const;

 private:
  GpuDevice() = default;

  const CublasLibrary* cublas_ = nullptr;
  CublasOwned<cublasLtHandle_t> lt_;
  Hardware hardware_;
  int device_ = 0;
  std::string pci_bus_id_;
};

}  // namespace epsim
