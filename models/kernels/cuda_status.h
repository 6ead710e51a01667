// A failed CUDA call as a status.
#pragma once

#include <cuda_runtime_api.h>

#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace epsim {

// Ok, or an error with `what` was tried, and the name and the words that CUDA has for it.
inline absl::Status CudaStatus(cudaError_t error, std::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  return absl::InternalError(
      absl::StrCat(std::string(what), ": ", cudaGetErrorName(error), ": ", cudaGetErrorString(error)));
}

}  // namespace epsim
