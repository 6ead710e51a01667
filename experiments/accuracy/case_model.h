// What the simulator predicts of one measured case, from its stated setup alone.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "experiments/accuracy/accuracy_report.h"
#include "experiments/accuracy/case_file.h"
#include "models/timing/timing.pb.h"

namespace epsim {

class CaseModel {
 public:
  virtual ~CaseModel() = default;
  // In the metric of the case, with the timing of the catalogue (null) or with another.
  virtual absl::StatusOr<double> Predict(const LibraryTiming* timing) = 0;
  // The same for cases that share a setup: platform, ranks, tokens or bytes, shape.  A fit is judged on groups that it
  // has not seen.
  virtual const std::string& group() const = 0;
  // Mean over max of the tokens of the ranks, in a layer of experts; none in other cases.
  virtual std::optional<double> balancedness() const { return std::nullopt; }
};

// An UnimplementedError where the case is well-formed but cannot be expressed: its message is the reason.  Any other
// error means that the file is wrong, and names the place.  `measured` must outlive the model.
absl::StatusOr<std::unique_ptr<CaseModel>> NewCaseModel(const Case& measured);

// Predictions with the timings of the catalogue, case by case.  `progress` may be null.
absl::StatusOr<std::vector<PredictedCase>> PredictCases(const std::vector<Case>& cases, const StopToken& stop,
                                                        Progress* progress);

}  // namespace epsim
