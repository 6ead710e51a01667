#include "traces/synthesis/popularity.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "engine/check.h"

namespace epsim {

std::vector<double> InclusionProbabilities(absl::Span<const double> popularity, int top_k) {
  std::vector<double> result(popularity.begin(), popularity.end());
  std::vector<bool> certain(result.size(), false);
  double left = top_k;  // Choices for those not certain.
  for (;;) {
    double sum = 0;
    for (size_t e = 0; e < result.size(); ++e) {
      if (!certain[e]) sum += popularity[e];
    }
    bool more = false;
    for (size_t e = 0; e < result.size(); ++e) {
      if (certain[e]) continue;
      result[e] = sum > 0 ? popularity[e] / sum * left : 0.0;
      more |= result[e] >= 1;
    }
    if (!more) return result;
    for (size_t e = 0; e < result.size(); ++e) {
      if (certain[e] || result[e] < 1) continue;
      result[e] = 1;
      certain[e] = true;
      left -= 1;
    }
    EPSIM_CHECK(left >= 0);
  }
}

std::vector<double> InclusionProbabilities(const LayerPopularity& popularity, int experts, int top_k,
                                           RandomStream& order) {
  std::vector<double> shape(experts, 1.0);
  switch (popularity.shape_case()) {
    case LayerPopularity::kUniform:
      break;
    case LayerPopularity::kZipf: {
      std::vector<int> rank(experts);
      std::iota(rank.begin(), rank.end(), 0);
      if (!popularity.zipf().by_id()) {
        for (int i = experts - 1; i > 0; --i) std::swap(rank[i], rank[order.Below(i + 1)]);
      }
      for (int i = 0; i < experts; ++i) shape[rank[i]] = std::pow(i + 1.0, -popularity.zipf().exponent());
      break;
    }
    case LayerPopularity::kExplicit:
      for (int e = 0; e < experts; ++e) shape[e] = popularity.explicit_().weights(e);
      break;
    case LayerPopularity::kHot: {
      const HotPopularity& hot = popularity.hot();
      const int hot_experts = hot.experts_size();
      shape.assign(experts, hot_experts == experts ? 0.0 : (1 - hot.share()) / (experts - hot_experts));
      for (uint32_t e : hot.experts()) shape[e] = hot.share() / hot_experts;
      break;
    }
    case LayerPopularity::kDealt:
    case LayerPopularity::SHAPE_NOT_SET:
      EPSIM_CHECK(false && "a popularity to draw from");
  }
  return InclusionProbabilities(shape, top_k);
}

std::vector<uint32_t> DrawingWeights(absl::Span<const double> inclusion, double keep_previous) {
  // An expert that every token is to choose would need an infinite weight.
  constexpr double kCertain = 1 - 1e-4;
  std::vector<double> weights(inclusion.size());
  double greatest = 0;
  for (size_t e = 0; e < inclusion.size(); ++e) {
    const double pi = std::min(inclusion[e], kCertain);
    weights[e] = pi > 0 ? std::log((1 - keep_previous * pi) / (1 - pi)) : 0.0;
    greatest = std::max(greatest, weights[e]);
  }
  EPSIM_CHECK(greatest > 0);
  std::vector<uint32_t> result(inclusion.size());
  for (size_t e = 0; e < inclusion.size(); ++e) {
    if (inclusion[e] > 0) result[e] = std::max<uint32_t>(1, std::floor(weights[e] / greatest * 0x1p24 + 0.5));
  }
  return result;
}

}  // namespace epsim
