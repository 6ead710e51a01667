// Fits the parameters of libraries' timing (models/timing) to measured cases, and says how well the result holds for
// setups that it has not seen.
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "engine/progress.h"
#include "engine/stop_token.h"
#include "experiments/accuracy/accuracy_report.h"
#include "experiments/accuracy/case_model.h"
#include "experiments/accuracy/fit.pb.h"
#include "models/timing/timing.pb.h"

namespace epsim {

// A group of rows is a setup (CaseModel::group).  As many parameters as a third of the groups, and never more than
// this, may be fitted together.
inline constexpr int kMostFittedParameters = 6;

// By library and family.
using Timings = std::map<std::pair<std::string, std::string>, LibraryTiming>;

struct Fit {
  std::vector<std::string> values = {};  // [parameters], as the fields are written.
  int groups = 0;
  std::vector<PredictedCase> fitted = {};    // Each row under the fit to all rows.
  std::vector<PredictedCase> left_out = {};  // Each row under the fit to the rows of all other groups.
};

// Minimises sum over rows of |ln(predicted / measured)|^1.5 with NLopt's Subplex (LN_SBPLX), deterministic, over the
// logarithms of the parameters, first for all rows and then without each group.  Of `cases` the tight rows of the
// plan's libraries and platforms count; they must outlive the result.  Entries of the catalogue that are not in
// `timings` yet are added to it, and those of the plan take the fitted values.  `progress`, which may be null, is told
// the part that is done, of 1,000.  Fails on a field that the timing does not have, on too few groups for the
// parameters, and on rows that cannot be predicted.
absl::StatusOr<Fit> FitTimings(const FitGroup& plan, const std::vector<Case>& cases, Timings* timings,
                               const StopToken& stop, Progress* progress);

// The files of the plan that ships.
absl::Span<const CatalogueFile> FitPlans();
// All of them, in one.
FitPlan ShippedFitPlan();

// Whether some tight case is one of those that the plan is fitted on.
bool HasRows(const FitGroup& plan, const std::vector<Case>& cases);

}  // namespace epsim
