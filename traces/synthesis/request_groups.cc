#include "traces/synthesis/request_groups.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace epsim {
namespace {

constexpr int kStarts = 4;
constexpr int kMostRounds = 30;

struct Point {
  std::vector<float> at;
  double weight = 0;
};

Point PointOf(const std::vector<uint32_t>& histogram, int experts) {
  Point point;
  point.at.resize(histogram.size());
  for (size_t begin = 0; begin < histogram.size(); begin += experts) {
    double sum = 0;
    for (int e = 0; e < experts; ++e) sum += histogram[begin + e];
    point.weight += sum;
    for (int e = 0; e < experts && sum > 0; ++e) {
      point.at[begin + e] = static_cast<float>(std::sqrt(histogram[begin + e] / sum));
    }
  }
  return point;
}

double SquaredDistance(const std::vector<float>& a, const std::vector<float>& b) {
  // In blocks, so that the sum is fast and yet the same on every machine.
  double total = 0;
  for (size_t begin = 0; begin < a.size(); begin += 256) {
    float block = 0;
    for (size_t i = begin; i < std::min(a.size(), begin + 256); ++i) block += (a[i] - b[i]) * (a[i] - b[i]);
    total += block;
  }
  return total;
}

struct Grouping {
  std::vector<int> group;
  double spread = std::numeric_limits<double>::max();  // Weighted sum of squared distances to the centres.
};

Grouping OneStart(const std::vector<Point>& points, int groups, RandomStream& random) {
  std::vector<std::vector<float>> centres;
  std::vector<double> nearest(points.size(), 1.0);
  while (static_cast<int>(centres.size()) < groups) {
    double sum = 0;
    for (size_t p = 0; p < points.size(); ++p) sum += points[p].weight * nearest[p];
    if (!(sum > 0)) break;  // Fewer distinct requests than groups.
    double draw = random.Unit() * sum;
    size_t chosen = 0;
    for (size_t p = 0; p < points.size(); ++p) {
      if (points[p].weight * nearest[p] <= 0) continue;
      chosen = p;
      draw -= points[p].weight * nearest[p];
      if (draw < 0) break;
    }
    centres.push_back(points[chosen].at);
    for (size_t p = 0; p < points.size(); ++p) {
      const double distance = SquaredDistance(points[p].at, centres.back());
      nearest[p] = centres.size() == 1 ? distance : std::min(nearest[p], distance);
    }
  }

  Grouping result;
  result.group.assign(points.size(), 0);
  for (int round = 0; round < kMostRounds; ++round) {
    double spread = 0;
    for (size_t p = 0; p < points.size(); ++p) {
      double least = std::numeric_limits<double>::max();
      for (size_t c = 0; c < centres.size(); ++c) {
        const double distance = SquaredDistance(points[p].at, centres[c]);
        if (distance < least) {
          least = distance;
          result.group[p] = static_cast<int>(c);
        }
      }
      spread += points[p].weight * least;
    }
    if (spread >= result.spread) break;
    result.spread = spread;
    for (size_t c = 0; c < centres.size(); ++c) {
      std::vector<double> sum(centres[c].size(), 0.0);
      double weight = 0;
      for (size_t p = 0; p < points.size(); ++p) {
        if (result.group[p] != static_cast<int>(c)) continue;
        weight += points[p].weight;
        for (size_t i = 0; i < sum.size(); ++i) sum[i] += points[p].weight * points[p].at[i];
      }
      for (size_t i = 0; i < sum.size() && weight > 0; ++i) centres[c][i] = static_cast<float>(sum[i] / weight);
    }
  }
  return result;
}

}  // namespace

std::vector<int> GroupRequests(absl::Span<const std::vector<uint32_t>> histograms, int experts, int groups,
                               RandomStream random) {
  std::vector<int> result(histograms.size(), 0);
  if (groups <= 1 || histograms.size() <= 1) return result;
  std::vector<Point> points;
  for (const std::vector<uint32_t>& histogram : histograms) points.push_back(PointOf(histogram, experts));
  Grouping best;
  for (int start = 0; start < kStarts; ++start) {
    Grouping grouping = OneStart(points, groups, random);
    if (grouping.spread < best.spread) best = grouping;
  }

  std::vector<int> size(groups, 0), by_size(groups), number(groups);
  for (int g : best.group) ++size[g];
  std::iota(by_size.begin(), by_size.end(), 0);
  std::stable_sort(by_size.begin(), by_size.end(), [&](int a, int b) { return size[a] > size[b]; });
  for (int i = 0; i < groups; ++i) number[by_size[i]] = i;
  for (size_t p = 0; p < points.size(); ++p) result[p] = number[best.group[p]];
  return result;
}

}  // namespace epsim
