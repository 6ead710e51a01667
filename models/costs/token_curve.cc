#include "models/costs/token_curve.h"

#include <algorithm>
#include <cmath>

#include "engine/check.h"

namespace epsim {

double LogFactor(double measured, double floor, double demand) {
  return std::log(std::max(measured - floor, 0.02 * measured) / demand);
}

void TokenCurve::Add(double tokens, double demand, double measured) {
  EPSIM_CHECK(tokens > 0 && demand > 0 && measured > 0);
  const Point point{tokens, std::log(tokens), LogFactor(measured, floor_, demand)};
  const auto place = std::lower_bound(points_.begin(), points_.end(), tokens,
                                      [](const Point& p, double value) { return p.tokens < value; });
  if (place != points_.end() && place->tokens == tokens) {
    *place = point;
  } else {
    points_.insert(place, point);
  }
}

CurveTime TokenCurve::At(double tokens, const TokenDemand& asked) const {
  EPSIM_CHECK(!points_.empty());
  if (tokens <= 0) return {floor_, true};
  const Point &first = points_.front(), &last = points_.back();
  const auto time = [&](double at, double log_factor) { return floor_ + asked.Picoseconds(at) * std::exp(log_factor); };
  if (tokens <= first.tokens) return {time(tokens, first.log_factor), tokens == first.tokens};
  if (tokens >= last.tokens) return {time(tokens, last.log_factor), tokens == last.tokens};
  const auto above = std::lower_bound(points_.begin(), points_.end(), tokens,
                                      [](const Point& p, double value) { return p.tokens < value; });
  const auto below = above - 1;
  const double share = (std::log(tokens) - below->log_tokens) / (above->log_tokens - below->log_tokens);
  const double between = time(tokens, below->log_factor + share * (above->log_factor - below->log_factor));
  const auto [least, most] =
      std::minmax({time(below->tokens, below->log_factor), time(above->tokens, above->log_factor)});
  return {std::clamp(between, least, most), true};
}

}  // namespace epsim
