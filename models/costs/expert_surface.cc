#include "models/costs/expert_surface.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "engine/check.h"

namespace epsim {
namespace {

constexpr double kNear = 1e-4;  // Squared distance within which a measurement counts alone.
constexpr double kRidge = 0.01;
constexpr double kInside = 2;   // Distance.
constexpr double kSame = 0.02;  // Distance.
constexpr size_t kNone = std::numeric_limits<size_t>::max();

}  // namespace

ExpertLoad ExpertLoad::Of(absl::Span<const int32_t> tokens_per_slot, int64_t tile) {
  int64_t active = 0, pairs = 0, rows = 0, most = 0;
  for (const int64_t tokens : tokens_per_slot) {
    active += tokens > 0;
    pairs += tokens;
    rows += (tokens + tile - 1) & ~(tile - 1);
    most = std::max(most, tokens);
  }
  return {.active = static_cast<double>(active),
          .pairs = static_cast<double>(pairs),
          .most = static_cast<double>(most),
          .rows = static_cast<double>(rows)};
}

ExpertLoad ExpertLoad::Of(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale, int64_t tile) {
  if (scale.empty()) return Of(tokens_per_slot, tile);
  EPSIM_CHECK(scale.size() == tokens_per_slot.size());
  ExpertLoad load;
  for (size_t slot = 0; slot < scale.size(); ++slot) {
    const int64_t tokens = tokens_per_slot[slot];
    load.active += tokens > 0 ? scale[slot] : 0;
    load.pairs += scale[slot] * static_cast<double>(tokens);
    load.rows += scale[slot] * static_cast<double>((tokens + tile - 1) & ~(tile - 1));
    load.most = std::max(load.most, static_cast<double>(tokens));
  }
  return load;
}

ExpertSurface::Place ExpertSurface::PlaceOf(const ExpertLoad& load) {
  const double mean = load.pairs / load.active;
  return {std::log2(mean), std::log2(load.active), std::log2(load.most / mean) / 2};
}

void ExpertSurface::Add(absl::Span<const int32_t> tokens_per_slot, double picoseconds) {
  const ExpertLoad load = ExpertLoad::Of(tokens_per_slot, tile_);
  EPSIM_CHECK(load.pairs > 0 && picoseconds > 0);
  const Place x = PlaceOf(load);
  size_t place = 0;
  const auto distance = [&](size_t i) {
    double sum = 0;
    for (int f = 0; f < kFeatures; ++f) sum += (x_[f][i] - x[f]) * (x_[f][i] - x[f]);
    return std::sqrt(sum);
  };
  while (place < measured_.size() && distance(place) > kSame) ++place;
  if (place == measured_.size()) {
    measured_.emplace_back();
    for (std::vector<double>& of_feature : x_) of_feature.emplace_back();
    log_factor_.emplace_back();
  }
  measured_[place] = {{tokens_per_slot.begin(), tokens_per_slot.end()}, picoseconds};
  for (int f = 0; f < kFeatures; ++f) x_[f][place] = x[f];
  log_factor_[place] = LogFactor(picoseconds, floor_, demand_.Picoseconds(load.active, load.pairs, load.rows));
  for (int f = 0; f < kFeatures; ++f) {
    const auto [low, high] = std::minmax_element(x_[f].begin(), x_[f].end());
    low_[f] = *low;
    high_[f] = *high;
  }
  const auto [least, greatest] = std::minmax_element(log_factor_.begin(), log_factor_.end());
  least_ = *least;
  greatest_ = *greatest;
}

void ExpertSurface::SetFactors() {
  for (size_t i = 0; i < measured_.size(); ++i) {
    const ExpertLoad load = ExpertLoad::Of(measured_[i].tokens_per_slot, tile_);
    log_factor_[i] =
        LogFactor(measured_[i].picoseconds, floor_, demand_.Picoseconds(load.active, load.pairs, load.rows));
  }
  const auto [least, greatest] = std::minmax_element(log_factor_.begin(), log_factor_.end());
  least_ = *least;
  greatest_ = *greatest;
}

void ExpertSurface::ChooseTile() {
  if (measured_.size() < 2) return;
  int64_t best_tile = tile_;
  double best = std::numeric_limits<double>::infinity();
  for (int64_t tile = 1; tile <= 256; tile = tile == 1 ? 8 : 2 * tile) {
    tile_ = tile;
    SetFactors();
    double sum = 0;
    for (const double ratio : LeaveOneOut()) sum += std::min(std::abs(std::log(ratio)), 0.5);
    if (sum < best) {
      best = sum;
      best_tile = tile;
    }
  }
  tile_ = best_tile;
  SetFactors();
}

double ExpertSurface::LogFactorAt(const Place& x, size_t left_out, double* nearest) const {
  // Sums over the measurements, with d = x_i - x:  w, w d, w y, w d d', w d y.
  double w0 = 0, wy = 0, w1[3] = {}, w1y[3] = {}, xx = 0, xy = 0, xz = 0, yy = 0, yz = 0, zz = 0;
  double least_distance = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < log_factor_.size(); ++i) {
    if (i == left_out) continue;
    const double d0 = x_[0][i] - x[0], d1 = x_[1][i] - x[1], d2 = x_[2][i] - x[2], y = log_factor_[i];
    const double squared = d0 * d0 + d1 * d1 + d2 * d2;
    least_distance = std::min(least_distance, squared);
    const double w = 1 / ((squared + kNear) * (squared + kNear));
    w0 += w;
    wy += w * y;
    const double p0 = w * d0, p1 = w * d1, p2 = w * d2;
    w1[0] += p0, w1[1] += p1, w1[2] += p2;
    w1y[0] += p0 * y, w1y[1] += p1 * y, w1y[2] += p2 * y;
    xx += p0 * d0, xy += p0 * d1, xz += p0 * d2;
    yy += p1 * d1, yz += p1 * d2, zz += p2 * d2;
  }
  *nearest = least_distance;
  const double ridge = kRidge * (xx + yy + zz) / 3 + 1e-9 * w0;
  xx += ridge, yy += ridge, zz += ridge;
  // The inverse of the symmetric 3 x 3, by its adjugate.
  const double c00 = yy * zz - yz * yz, c01 = xz * yz - xy * zz, c02 = xy * yz - xz * yy;
  const double c11 = xx * zz - xz * xz, c12 = xy * xz - xx * yz, c22 = xx * yy - xy * xy;
  const double determinant = xx * c00 + xy * c01 + xz * c02;
  const double g[3] = {(c00 * w1[0] + c01 * w1[1] + c02 * w1[2]) / determinant,
                       (c01 * w1[0] + c11 * w1[1] + c12 * w1[2]) / determinant,
                       (c02 * w1[0] + c12 * w1[1] + c22 * w1[2]) / determinant};
  const double below = w0 - (g[0] * w1[0] + g[1] * w1[1] + g[2] * w1[2]);
  const double above = wy - (g[0] * w1y[0] + g[1] * w1y[1] + g[2] * w1y[2]);
  const double value = below > 1e-9 * w0 ? above / below : wy / w0;
  return std::clamp(value, least_, greatest_);
}

CurveTime ExpertSurface::At(const ExpertLoad& load, const ExpertLoad& weighted, const ExpertDemand& asked) const {
  EPSIM_CHECK(!empty());
  if (load.pairs <= 0) return {floor_, true};
  Place x = PlaceOf(load);
  bool inside = true;
  for (int f = 0; f < kFeatures; ++f) {
    constexpr double kRounding = 1e-9;
    inside = inside && x[f] >= low_[f] - kRounding && x[f] <= high_[f] + kRounding;
    x[f] = std::clamp(x[f], low_[f], high_[f]);
  }
  double nearest;
  const double factor = std::exp(LogFactorAt(x, kNone, &nearest));
  return {floor_ + asked.Picoseconds(weighted.active, weighted.pairs, weighted.rows) * factor,
          inside && nearest <= kInside * kInside};
}

double ExpertSurface::AtLeast(const ExpertDemand& asked, double active, double pairs) const {
  return floor_ + asked.Picoseconds(active, pairs, pairs) * std::exp(least_);
}

std::vector<double> ExpertSurface::LeaveOneOut() const {
  std::vector<double> ratios;
  for (size_t i = 0; i < measured_.size(); ++i) {
    double nearest;
    const ExpertLoad load = ExpertLoad::Of(measured_[i].tokens_per_slot, tile_);
    const double factor = std::exp(LogFactorAt({x_[0][i], x_[1][i], x_[2][i]}, i, &nearest));
    ratios.push_back((floor_ + demand_.Picoseconds(load.active, load.pairs, load.rows) * factor) /
                     measured_[i].picoseconds);
  }
  return ratios;
}

}  // namespace epsim
