#include "experiments/accuracy/power_law_load.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "engine/check.h"

namespace epsim {
namespace {

// By the inverse of the distribution function; alpha = 1 is the limit least * (most / least)^u.
double DrawPowerLaw(double alpha, double least, double most, double u) {
  const double exponent = 1 - alpha;
  if (std::abs(exponent) < 1e-9) return least * std::pow(most / least, u);
  const double low = std::pow(least, exponent), high = std::pow(most, exponent);
  return std::pow(low + (high - low) * u, 1 / exponent);
}

}  // namespace

std::vector<int32_t> DrawPowerLawLoad(int32_t tokens, int experts, int top_k, double alpha, RandomStream& random) {
  EPSIM_CHECK(tokens >= 1 && alpha > 0 && top_k <= experts);
  const int64_t pairs = int64_t{tokens} * top_k;
  const bool many = pairs > experts;
  const double least = many ? 1 : 0.01, most = many ? std::max(1.0, 0.8 * tokens) : 2;
  std::vector<double> popularity(experts);
  for (double& p : popularity) p = DrawPowerLaw(alpha, least, most, random.Unit());
  const double sum = std::accumulate(popularity.begin(), popularity.end(), 0.0);
  std::vector<int32_t> load(experts);
  int64_t missing = pairs;
  for (int e = 0; e < experts; ++e) {
    const double share = std::round(popularity[e] / sum * static_cast<double>(pairs));
    load[e] = static_cast<int32_t>(std::min<double>(share, tokens));
    missing -= load[e];
  }
  while (missing != 0) {
    int32_t& count = load[random.Below(static_cast<uint64_t>(experts))];
    const int32_t step = missing > 0 ? 1 : -1;
    if (count + step < 0 || count + step > tokens) continue;
    count += step;
    missing -= step;
  }
  return load;
}

}  // namespace epsim
