// What one kernel takes as a function of its tokens, from measurements at some of them.
#pragma once

#include <vector>

#include "models/calibration/work_demand.h"

namespace epsim {

// A time, and whether it lies between measurements.
struct CurveTime {
  double picoseconds = 0;
  bool inside = true;
};

// Every measurement is read as  floor + demand / utilisation,  where demand is what the kernel takes at the GPU's peaks
// (work_demand.h).  Between two measurements the logarithm of the utilisation is interpolated over the logarithm of the
// tokens, and the time is not let out of what lies between theirs: where measurements rise, no time in between falls
// below the lower one.  Beyond the first and the last the utilisation stays as it is there.
class TokenCurve {
 public:
  // `floor`: of a kernel without work, in picoseconds.
  explicit TokenCurve(double floor = 0) : floor_(floor) {}

  // In any order; of equal tokens the last counts.  A measurement below the floor is read as a little more than it.
  // REQUIRES: tokens, demand and measured are more than 0.
  void Add(double tokens, double demand, double measured);
  bool empty() const { return points_.empty(); }
  double floor() const { return floor_; }

  // `asked` may be another kernel's, of other sizes.  No tokens: the floor.  REQUIRES: not empty.
  CurveTime At(double tokens, const TokenDemand& asked) const;

 private:
  struct Point {
    double tokens, log_tokens, log_factor;  // factor = 1 / utilisation.
  };
  double floor_;
  std::vector<Point> points_;  // By tokens.
};

// log(max(measured - floor, 2 % of measured) / demand): the second so that noise around the floor gives a time.
double LogFactor(double measured, double floor, double demand);

}  // namespace epsim
