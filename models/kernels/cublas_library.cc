#include "models/kernels/cublas_library.h"

#include <dlfcn.h>

#include <cstdlib>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

std::vector<std::string> Places(std::string_view name) {
  const std::string file = absl::StrCat("lib", std::string(name), ".so.", CUBLAS_VER_MAJOR);
  std::vector<std::string> places = {file};
  for (const char* variable : {"CUDA_HOME", "CUDA_PATH"}) {
    if (const char* folder = std::getenv(variable); folder != nullptr) {
      places.push_back(absl::StrCat(folder, "/lib64/", file));
    }
  }
  places.push_back(absl::StrCat("/usr/local/cuda/lib64/", file));
  places.push_back(absl::StrCat("/usr/local/cuda-", CUBLAS_VER_MAJOR, "/lib64/", file));
  return places;
}

// Kept until the process ends.
absl::StatusOr<void*> Open(std::string_view name) {
  const std::vector<std::string> places = Places(name);
  std::string first_problem;
  for (const std::string& place : places) {
    if (void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL); library != nullptr) return library;
    if (first_problem.empty()) first_problem = dlerror();
  }
  return absl::FailedPreconditionError(absl::StrCat(first_problem, "; tried ", absl::StrJoin(places, ", "),
                                                    ": set LD_LIBRARY_PATH to the folder of cuBLAS ",
                                                    CUBLAS_VER_MAJOR));
}

template <typename Function>
absl::Status Find(void* library, const char* name, Function* function) {
  *function = reinterpret_cast<Function>(dlsym(library, name));
  if (*function != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat("cuBLAS has no function ", name, ": ", dlerror()));
}

}  // namespace

absl::StatusOr<CublasLibrary> CublasLibrary::Load() {
  CublasLibrary result;
  ASSIGN_OR_RETURN(void* const lt, Open("cublasLt"));
  RETURN_IF_ERROR(Find(lt, "cublasLtCreate", &result.lt_create));
  RETURN_IF_ERROR(Find(lt, "cublasLtDestroy", &result.lt_destroy));
  RETURN_IF_ERROR(Find(lt, "cublasLtGetVersion", &result.lt_get_version));
  RETURN_IF_ERROR(Find(lt, "cublasLtGetStatusName", &result.lt_get_status_name));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulDescCreate", &result.lt_matmul_desc_create));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulDescDestroy", &result.lt_matmul_desc_destroy));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulDescSetAttribute", &result.lt_matmul_desc_set_attribute));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatrixLayoutCreate", &result.lt_matrix_layout_create));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatrixLayoutDestroy", &result.lt_matrix_layout_destroy));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulPreferenceCreate", &result.lt_matmul_preference_create));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulPreferenceDestroy", &result.lt_matmul_preference_destroy));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulPreferenceSetAttribute", &result.lt_matmul_preference_set_attribute));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmulAlgoGetHeuristic", &result.lt_matmul_algo_get_heuristic));
  RETURN_IF_ERROR(Find(lt, "cublasLtMatmul", &result.lt_matmul));
  // Needs the other, which is there already.
  ASSIGN_OR_RETURN(void* const cublas, Open("cublas"));
  RETURN_IF_ERROR(Find(cublas, "cublasCreate_v2", &result.create));
  RETURN_IF_ERROR(Find(cublas, "cublasDestroy_v2", &result.destroy));
  RETURN_IF_ERROR(Find(cublas, "cublasSetStream_v2", &result.set_stream));
  RETURN_IF_ERROR(Find(cublas, "cublasSetWorkspace_v2", &result.set_workspace));
  RETURN_IF_ERROR(Find(cublas, "cublasGemmGroupedBatchedEx", &result.gemm_grouped_batched_ex));
  return result;
}

absl::StatusOr<const CublasLibrary*> CublasLibrary::Get() {
  static const auto* const kLibrary = new absl::StatusOr<CublasLibrary>(Load());
  if (!kLibrary->ok()) return kLibrary->status();
  return &**kLibrary;
}

std::string CublasLibrary::version() const {
  const size_t version = lt_get_version();
  return absl::StrCat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

absl::Status CublasLibrary::Status(cublasStatus_t status, std::string_view what) const {
  if (status == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
  return absl::InternalError(absl::StrCat(std::string(what), ": ", lt_get_status_name(status)));
}

}  // namespace epsim
