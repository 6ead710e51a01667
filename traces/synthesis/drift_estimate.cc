#include "traces/synthesis/drift_estimate.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace epsim {
namespace {

constexpr size_t kMostWindows = 16;
constexpr size_t kLeastRequestsInWindow = 4;
constexpr int kShuffles = 16;
constexpr double kSignificance = 5;      // Standard deviations.
constexpr double kLeastFraction = 0.01;  // Less than this is not worth a mention.
constexpr double kPassing = 0.6;

size_t WindowsOf(size_t requests) { return std::min(kMostWindows, requests / kLeastRequestsInWindow); }

void Shuffle(std::vector<size_t>& order, RandomStream& random) {
  for (size_t i = order.size() - 1; i > 0; --i) std::swap(order[i], order[random.Below(i + 1)]);
}

class Windows {
 public:
  Windows(absl::Span<const std::vector<uint32_t>> histograms, int experts)
      : experts_(experts), cells_(histograms[0].size()), windows_(WindowsOf(histograms.size())) {
    for (const std::vector<uint32_t>& histogram : histograms) {
      // Requests weigh alike, so that a window's popularity is a plain mean; each layer's cells sum to 1.
      std::vector<float>& share = shares_.emplace_back(cells_);
      for (size_t begin = 0; begin < cells_; begin += experts_) {
        double sum = 0;
        for (int e = 0; e < experts_; ++e) sum += histogram[begin + e];
        for (int e = 0; e < experts_; ++e) {
          share[begin + e] = static_cast<float>(sum > 0 ? histogram[begin + e] / sum : 1.0 / experts_);
        }
      }
    }
  }

  // Squared distance of the popularities of neighbouring windows, the requests being in this order; mean over cells.
  double Distance(const std::vector<size_t>& order) const {
    double sum = 0;
    std::vector<double> before, now;
    for (size_t w = 0; w < windows_; ++w) {
      now = Popularity(order, w, 0, 1);
      for (size_t c = 0; c < cells_ && w > 0; ++c) sum += (now[c] - before[c]) * (now[c] - before[c]);
      std::swap(before, now);
    }
    return sum / static_cast<double>((windows_ - 1) * cells_);
  }

  // Part of the hot set that changes from a window to the next.  Two halves of one window, every second request each,
  // differ by chance in a part c of their hot sets; halves of neighbouring windows in b; b = drift + (1 - drift) c.
  double Drift(const std::vector<size_t>& order) const {
    double within = 0, between = 0;
    for (size_t w = 0; w < windows_; ++w) {
      const std::vector<double> even = Popularity(order, w, 0, 2);
      within += Turnover(even, Popularity(order, w, 1, 2)) / static_cast<double>(windows_);
      if (w > 0) between += Turnover(Popularity(order, w - 1, 0, 2), even) / static_cast<double>(windows_ - 1);
    }
    return within < 1 ? std::max(0.0, (between - within) / (1 - within)) : 0.0;
  }

 private:
  // Mean over every stride-th request of a window, from its `first`.
  std::vector<double> Popularity(const std::vector<size_t>& order, size_t window, size_t first, size_t stride) const {
    std::vector<double> mean(cells_, 0.0);
    const size_t begin = window * order.size() / windows_, end = (window + 1) * order.size() / windows_;
    double requests = 0;
    for (size_t i = begin + first; i < end; i += stride, ++requests) {
      for (size_t c = 0; c < cells_; ++c) mean[c] += shares_[order[i]][c];
    }
    for (double& x : mean) x /= requests;
    return mean;
  }

  double Turnover(const std::vector<double>& before, const std::vector<double>& now) const {
    const size_t hot = std::max(1, experts_ / 8);
    size_t left = 0, layers = 0;
    for (size_t begin = 0; begin < cells_; begin += experts_, ++layers) {
      const std::vector<int> a = Hottest(before, begin, hot), b = Hottest(now, begin, hot);
      for (int e : a) left += std::find(b.begin(), b.end(), e) == b.end();
    }
    return static_cast<double>(left) / static_cast<double>(layers * hot);
  }

  std::vector<int> Hottest(const std::vector<double>& share, size_t begin, size_t hot) const {
    std::vector<int> by_heat(experts_);
    std::iota(by_heat.begin(), by_heat.end(), 0);
    std::stable_sort(by_heat.begin(), by_heat.end(), [&](int x, int y) { return share[begin + x] > share[begin + y]; });
    by_heat.resize(hot);
    return by_heat;
  }

  const int experts_;
  const size_t cells_, windows_;
  std::vector<std::vector<float>> shares_;  // [requests][layers * experts]
};

// Mean over requests of the number of windows that have a request of its group.
double Occupancy(absl::Span<const int> group, const std::vector<size_t>& order) {
  const size_t windows = WindowsOf(order.size());
  const int groups = *std::max_element(group.begin(), group.end()) + 1;
  std::vector<int> requests(groups, 0), occupied(groups, 0);
  for (size_t w = 0; w < windows; ++w) {
    std::vector<bool> here(groups, false);
    for (size_t i = w * order.size() / windows; i < (w + 1) * order.size() / windows; ++i) {
      here[group[order[i]]] = true;
      ++requests[group[order[i]]];
    }
    for (int g = 0; g < groups; ++g) occupied[g] += here[g];
  }
  double sum = 0;
  for (int g = 0; g < groups; ++g) sum += static_cast<double>(requests[g]) * occupied[g];
  return sum / static_cast<double>(order.size());
}

}  // namespace

std::optional<DriftEstimate> EstimateDrift(absl::Span<const std::vector<uint32_t>> histograms, int experts,
                                           RandomStream random) {
  if (WindowsOf(histograms.size()) < 3 || experts < 2) return std::nullopt;
  const Windows windows(histograms, experts);
  std::vector<size_t> order(histograms.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const double distance = windows.Distance(order);
  const double fraction = windows.Drift(order);

  double sum = 0, squares = 0;
  for (int s = 0; s < kShuffles; ++s) {
    Shuffle(order, random);
    const double shuffled = windows.Distance(order);
    sum += shuffled;
    squares += shuffled * shuffled;
  }
  const double mean = sum / kShuffles;
  const double deviation = std::sqrt(std::max(0.0, squares / kShuffles - mean * mean));
  // Where heat wanders far, all shuffled windows are the same mixture and neighbours are nearer than they: still drift.
  if (!(std::abs(distance - mean) > kSignificance * deviation) || fraction < kLeastFraction) return std::nullopt;
  return DriftEstimate{fraction, histograms.size() / WindowsOf(histograms.size())};
}

bool GroupsPass(absl::Span<const int> group, RandomStream random) {
  if (WindowsOf(group.size()) < 3) return false;
  std::vector<size_t> order(group.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const double observed = Occupancy(group, order);
  double shuffled = 0;
  for (int s = 0; s < kShuffles; ++s) {
    Shuffle(order, random);
    shuffled += Occupancy(group, order) / kShuffles;
  }
  return observed < kPassing * shuffled;
}

}  // namespace epsim
