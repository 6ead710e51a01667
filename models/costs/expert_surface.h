// What the experts of a rank take as a function of their whole histogram, from measurements of some.
//
// Measured times spread over five decades, but what a grouped GEMM reaches of the GPU does not, and it depends on
// little: how many tokens an active slot has (from reading weights to computing), how many slots are active (whether
// the GPU is filled), and how unequal they are (whether the last tile is waited for).  So a measurement is read as
//   floor + demand / utilisation
// with the demand of work_demand.h, tiles included, and what is interpolated is the logarithm of the utilisation, over
//   x = (log2(pairs / active), log2(active), log2(most * active / pairs) / 2),   most = tokens of the fullest slot
// by moving least squares of first degree (Lancaster, Salkauskas 1981): around the asked x a plane is fitted to all
// measurements, each weighted by 1 / (distance^2 + 1e-4)^2, its slopes held back by a ridge of 1 % of their mean
// variance; the plane's value there, within the least and the greatest measured, is taken.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "models/calibration/work_demand.h"
#include "models/costs/token_curve.h"

namespace epsim {

// What a time depends on of a histogram.
struct ExpertLoad {
  double active = 0, pairs = 0, most = 0;
  double rows = 0;  // Of tiles.

  // REQUIRES: `tile` is a power of two.
  static ExpertLoad Of(absl::Span<const int32_t> tokens_per_slot, int64_t tile);
  // `active`, `pairs` and `rows` with every slot counted as often as its scale.
  static ExpertLoad Of(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale, int64_t tile);
};

class ExpertSurface {
 public:
  // Of experts with this demand; `floor` of their kernels without tokens, in picoseconds.
  ExpertSurface(const ExpertDemand& demand, double floor) : demand_(demand), floor_(floor) {}

  // A measurement.  One that lies on another (within 0.02) in all of x replaces it.  REQUIRES: there are tokens.
  void Add(absl::Span<const int32_t> tokens_per_slot, double picoseconds);
  // Takes the rows of a tile, 1 to 256, for which each measurement is best told from the others.
  void ChooseTile();

  bool empty() const { return log_factor_.empty(); }
  double floor() const { return floor_; }
  int64_t tile() const { return tile_; }
  const ExpertDemand& demand() const { return demand_; }

  // `load` is without scale and places the histogram among the measured ones, `weighted` is with scale and says how
  // much there is to do, of experts with demand `asked`.  Inside: every part of x within what was measured, and a
  // measurement within a distance of 2 (twice or half the tokens of twice or half the slots is 1.4 away).  Outside, x
  // is brought into the measured range first.  Without tokens: the floor.  REQUIRES: not empty; both loads are of
  // tile().
  CurveTime At(const ExpertLoad& load, const ExpertLoad& weighted, const ExpertDemand& asked) const;

  // A time that no At() of this demand with as much work stays below.
  double AtLeast(const ExpertDemand& asked, double active, double pairs) const;

  // For tests: of each measurement, the time told from all others over the measured one.
  std::vector<double> LeaveOneOut() const;

 private:
  static constexpr int kFeatures = 3;
  using Place = std::array<double, kFeatures>;
  static Place PlaceOf(const ExpertLoad& load);
  // Of the plane at `x`, without measurement `left_out`; and the least squared distance.
  double LogFactorAt(const Place& x, size_t left_out, double* nearest) const;
  void SetFactors();

  ExpertDemand demand_;
  double floor_;
  int64_t tile_ = 64;
  struct Measured {
    std::vector<int32_t> tokens_per_slot;
    double picoseconds;
  };
  std::vector<Measured> measured_;
  std::array<std::vector<double>, kFeatures> x_;  // [kFeatures][measurements]
  std::vector<double> log_factor_;                // [measurements]
  Place low_{}, high_{};
  double least_ = 0, greatest_ = 0;  // Of the factors' logarithms.
};

}  // namespace epsim
