// A kernel that does nothing: what a launch costs.
#pragma once

#include "absl/status/status.h"

struct CUstream_st;

namespace epsim {

absl::Status LaunchEmptyKernel(CUstream_st* stream);

}  // namespace epsim
