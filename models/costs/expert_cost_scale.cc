#include "models/costs/expert_cost_scale.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/random_stream.h"
#include "engine/status_macros.h"

namespace epsim {
namespace {

constexpr double kLargestScale = 1000, kLargestSpread = 2;

// [layers, experts]
std::vector<double> DrawScales(double spread, int layers, int experts, uint64_t seed) {
  RandomStream random(seed, "expert_cost_scale");
  std::vector<double> scale;
  scale.reserve(static_cast<size_t>(layers) * experts);
  for (int layer = 0; layer < layers; ++layer) {
    double sum = 0;
    for (int expert = 0; expert < experts; ++expert) {
      const double u = random.Unit(), v = random.Unit();
      const double z = std::sqrt(-2 * std::log(1 - u)) * std::cos(2 * std::numbers::pi * v);
      scale.push_back(std::exp(spread * z));
      sum += scale.back();
    }
    const double mean = sum / experts;
    for (auto s = scale.end() - experts; s != scale.end(); ++s) *s /= mean;
  }
  return scale;
}

}  // namespace

ExpertCostScale::ExpertCostScale(int experts, std::vector<double> scale)
    : experts_(static_cast<size_t>(experts)), scale_(std::move(scale)) {
  EPSIM_CHECK(experts > 0 && scale_.size() % experts_ == 0);
  EPSIM_CHECK(std::all_of(scale_.begin(), scale_.end(), [](double s) { return s > 0 && std::isfinite(s); }));
}

absl::Span<const double> ExpertCostScale::of(Layer layer) const {
  EPSIM_CHECK((Index(layer) + 1) * experts_ <= scale_.size());
  return absl::MakeConstSpan(scale_).subspan(Index(layer) * experts_, experts_);
}

void ExpertCostScale::Gather(Layer layer, absl::Span<const LogicalExpert> experts, absl::Span<double> scale) const {
  EPSIM_CHECK(experts.size() == scale.size());
  const absl::Span<const double> of_layer = of(layer);
  for (size_t slot = 0; slot < experts.size(); ++slot) {
    scale[slot] = experts[slot] == kNoExpert ? 1 : of_layer[Index(experts[slot])];
  }
}

absl::Status CheckExpertCostScale(const ExpertCostScaleConfig& config) {
  for (int i = 0; i < config.scale_size(); ++i) {
    if (config.scale(i) > 0 && config.scale(i) <= kLargestScale) continue;
    return absl::InvalidArgumentError(absl::StrCat("expert_cost_scale.scale: number ", i + 1, " is ", config.scale(i),
                                                   "; it must be more than 0 and at most ", kLargestScale));
  }
  if (!(config.spread() >= 0 && config.spread() <= kLargestSpread)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expert_cost_scale.spread is ", config.spread(), "; it must be from 0 to ", kLargestSpread));
  }
  if (config.scale_size() > 0 && config.spread() > 0) {
    return absl::InvalidArgumentError("expert_cost_scale: scale and spread are both given; one of them would do");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<const ExpertCostScale>> NewExpertCostScale(const ExpertCostScaleConfig& config,
                                                                          int layers, int experts, uint64_t seed) {
  RETURN_IF_ERROR(CheckExpertCostScale(config));
  std::vector<double> scale(config.scale().begin(), config.scale().end());
  if (config.spread() > 0) scale = DrawScales(config.spread(), layers, experts, seed);
  const size_t row = experts, all = row * layers;
  if (!scale.empty() && scale.size() != row && scale.size() != all) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expert_cost_scale.scale: ", scale.size(), " numbers for a model of ", layers, " MoE layers of ", experts,
        " experts; ", row, " would do, for all layers", layers > 1 ? absl::StrCat(", or ", all) : std::string()));
  }
  if (std::all_of(scale.begin(), scale.end(), [](double s) { return s == 1; })) return nullptr;
  while (scale.size() < all) scale.insert(scale.end(), scale.begin(), scale.begin() + experts);
  return std::make_unique<const ExpertCostScale>(experts, std::move(scale));
}

}  // namespace epsim
