#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "experiments/accuracy/case_model.h"

namespace epsim {

// A measured dispatch or combine (kind ep_all_to_all), predicted as a replay would: tokens are drawn as the setup says,
// counted, turned into an exchange by the strategy and timed on the network.  Times and bandwidths are means over
// several draws.
absl::StatusOr<std::unique_ptr<CaseModel>> NewAllToAllCase(const Case& measured);

}  // namespace epsim
