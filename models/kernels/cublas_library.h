// cuBLAS and cuBLASLt, loaded when a GPU is asked for and not before: they are half a gigabyte, and a machine without a
// GPU does not have them.
#pragma once

#include <cublasLt.h>
#include <cublas_v2.h>

#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace epsim {

class CublasLibrary {
 public:
  // The libraries of the major version that this build knows, loaded once in a process and kept: from where the loader
  // looks (LD_LIBRARY_PATH), else from the CUDA toolkit's folder.  The error says what was tried.
  static absl::StatusOr<const CublasLibrary*> Get();

  std::string version() const;  // "13.1.0"

  // Ok, or an error with `what` was tried and the name that cuBLAS has for it.
  absl::Status Status(cublasStatus_t status, std::string_view what) const;

  decltype(&::cublasLtCreate) lt_create = nullptr;
  decltype(&::cublasLtDestroy) lt_destroy = nullptr;
  decltype(&::cublasLtGetVersion) lt_get_version = nullptr;
  decltype(&::cublasLtGetStatusName) lt_get_status_name = nullptr;
  decltype(&::cublasLtMatmulDescCreate) lt_matmul_desc_create = nullptr;
  decltype(&::cublasLtMatmulDescDestroy) lt_matmul_desc_destroy = nullptr;
  decltype(&::cublasLtMatmulDescSetAttribute) lt_matmul_desc_set_attribute = nullptr;
  decltype(&::cublasLtMatrixLayoutCreate) lt_matrix_layout_create = nullptr;
  decltype(&::cublasLtMatrixLayoutDestroy) lt_matrix_layout_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceCreate) lt_matmul_preference_create = nullptr;
  decltype(&::cublasLtMatmulPreferenceDestroy) lt_matmul_preference_destroy = nullptr;
  decltype(&::cublasLtMatmulPreferenceSetAttribute) lt_matmul_preference_set_attribute = nullptr;
  decltype(&::cublasLtMatmulAlgoGetHeuristic) lt_matmul_algo_get_heuristic = nullptr;
  decltype(&::cublasLtMatmul) lt_matmul = nullptr;

  decltype(&::cublasCreate_v2) create = nullptr;
  decltype(&::cublasDestroy_v2) destroy = nullptr;
  decltype(&::cublasSetStream_v2) set_stream = nullptr;
  decltype(&::cublasSetWorkspace_v2) set_workspace = nullptr;
  decltype(&::cublasGemmGroupedBatchedEx) gemm_grouped_batched_ex = nullptr;

 private:
  static absl::StatusOr<CublasLibrary> Load();
};

// A handle, or a descriptor, and what destroys it.
template <typename Handle>
class CublasOwned {
 public:
  using Destroy = cublasStatus_t (*)(Handle);
  CublasOwned() = default;
  CublasOwned(Handle handle, Destroy destroy) : handle_(handle, destroy) {}
  Handle get() const { return handle_.get(); }

 private:
  std::unique_ptr<std::remove_pointer_t<Handle>, Destroy> handle_{nullptr, nullptr};
};

}  // namespace epsim
