// How far predictions are from measurements: a table by kind, library and platform, and a line a case.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/types/span.h"
#include "experiments/accuracy/case_file.h"

namespace epsim {

// A case with what is predicted of it, or why nothing is.
struct PredictedCase {
  const Case* measured;
  double predicted = 0;                     // In the metric of the case.
  std::string unsupported = {};             // The reason; empty where there is a prediction.
  std::optional<double> balancedness = {};  // CaseModel::balancedness().

  double error() const { return predicted / measured->measured - 1; }
};

// Of |error|, and of error with its sign.
struct Accuracy {
  int cases = 0;
  double median = 0, ninetieth = 0;  // Of |error|; percentiles by linear interpolation between the order statistics.
  double bias = 0;                   // Median of error.
  double worst = 0;                  // The error that is farthest from 0.
  std::string worst_id = {};
};
// REQUIRES: every case has a prediction.
Accuracy AccuracyOf(absl::Span<const PredictedCase> cases);

// Lines of "kind library platform weight", cases, unsupported, median, 90th percentile, bias, worst; then the reasons
// of the unsupported cases.  Where a library is measured on several platforms a line sums it up.
std::string AccuracyTable(absl::Span<const PredictedCase> cases);

// Lines of "kind library balancedness" and the same columns, for the cases that know how balanced the load is; empty
// without.
std::string SkewTable(absl::Span<const PredictedCase> cases);

// "id,kind,platform,metric,measured,predicted,relative_error,status", a line a case, with the header.  Fields that hold
// commas, quotes or line ends are quoted (RFC 4180).
std::string AccuracyCsv(absl::Span<const PredictedCase> cases);

// "3.1 %".
std::string Percent(double ratio);

}  // namespace epsim
