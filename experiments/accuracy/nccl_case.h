#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_model.h"

namespace epsim {

// A measured collective of NCCL (kind nccl), timed on the network.  `bytes_per_rank` is the size as nccl-tests states
// it (NcclCollective::Run).
absl::StatusOr<std::unique_ptr<CaseModel>> NewNcclCase(const Case& measured);

}  // namespace epsim
