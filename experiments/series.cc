#include "experiments/series.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"

namespace epsim {
namespace {

// Student's t, 97.5 %, 19 degrees of freedom (kBlocks - 1).
constexpr double kStudent19 = 2.093024054;
static_assert(kBlocks == 20);

double Sum(absl::Span<const double> values) {
  double sum = 0;
  for (double value : values) sum += value;
  return sum;
}

}  // namespace

double Mean(absl::Span<const double> values) {
  return values.empty() ? 0 : Sum(values) / static_cast<double>(values.size());
}

std::optional<Interval> RatioInterval(absl::Span<const double> numerator, absl::Span<const double> denominator) {
  EPSIM_CHECK(numerator.size() == denominator.size());
  const size_t n = numerator.size();
  if (n < 2 * kBlocks) return std::nullopt;
  double ratio[kBlocks], mean = 0, squares = 0;
  for (size_t block = 0; block < kBlocks; ++block) {
    const size_t begin = block * n / kBlocks, end = (block + 1) * n / kBlocks;
    const double below = Sum(denominator.subspan(begin, end - begin));
    ratio[block] = below == 0 ? 0 : Sum(numerator.subspan(begin, end - begin)) / below;
    mean += ratio[block] / kBlocks;
  }
  for (double r : ratio) squares += (r - mean) * (r - mean);
  const double half = kStudent19 * std::sqrt(squares / (kBlocks - 1) / kBlocks);
  const double total = Sum(denominator);
  const double centre = total == 0 ? 0 : Sum(numerator) / total;
  return Interval{centre - half, centre + half};
}

std::optional<Interval> MeanInterval(absl::Span<const double> values) {
  return RatioInterval(values, std::vector<double>(values.size(), 1.0));
}

int SamplesFor(double q) {
  EPSIM_CHECK(q > 0 && q < 1);
  return static_cast<int>(std::ceil(kSamplesInTail / std::min(q, 1 - q) - 1e-9));
}

std::optional<double> Percentile(absl::Span<const double> values, double q) {
  if (values.size() < static_cast<size_t>(SamplesFor(q))) return std::nullopt;
  std::vector<double> sorted(values.begin(), values.end());
  const size_t rank = static_cast<size_t>(std::ceil(q * static_cast<double>(sorted.size()) - 1e-9));
  std::nth_element(sorted.begin(), sorted.begin() + (rank - 1), sorted.end());
  return sorted[rank - 1];
}

}  // namespace epsim
