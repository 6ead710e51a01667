// Statistics of one figure over the steps of a run, with the uncertainty that they deserve.
#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "absl/types/span.h"

namespace epsim {

// Steps are cut in this many blocks of equal length for intervals; neighbouring steps share requests, so single steps
// are not independent, blocks nearly are.
inline constexpr int kBlocks = 20;
// A percentile needs this many samples beyond it.
inline constexpr int kSamplesInTail = 5;

struct Interval {
  double low, high;
};

// Mean of `values`; 0 where there are none.
double Mean(absl::Span<const double> values);

// 95 % confidence interval of sum(numerator) / sum(denominator) by batch means: over kBlocks blocks b of consecutive
// steps, r_b = sum_b(numerator) / sum_b(denominator), half width = t(0.975, kBlocks - 1) * stddev(r_b) / sqrt(kBlocks),
// around the ratio of the sums [Law, Simulation Modeling and Analysis, 9.5.3].  None with fewer than 2 steps a block.
std::optional<Interval> RatioInterval(absl::Span<const double> numerator, absl::Span<const double> denominator);
// The same for a plain mean.
std::optional<Interval> MeanInterval(absl::Span<const double> values);

// Samples that a percentile `q` in (0, 1) needs: kSamplesInTail / min(q, 1 - q), rounded up.
int SamplesFor(double q);
// Nearest-rank percentile: the ceil(q * n)-th smallest of n.  None with fewer than SamplesFor(q) samples.
std::optional<double> Percentile(absl::Span<const double> values, double q);

}  // namespace epsim
