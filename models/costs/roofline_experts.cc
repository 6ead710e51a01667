#include "models/costs/roofline_experts.h"

#include "engine/check.h"
#include "models/number_type.h"

namespace epsim {
namespace {

double BytesOf(int64_t values, NumberType type) { return static_cast<double>(ActivationBytes(values, type).count()); }

}  // namespace

RooflineExperts::RooflineExperts(const GpuRates& rates, const ModelSpec& model, NumberType weights,
                                 NumberType activations, std::optional<RooflinePermutation> permutation)
    : tile_tokens_(static_cast<uint32_t>(rates.tile_tokens)),
      gate_up_(rates, 2 * int64_t{model.moe_intermediate()}, model.hidden(), weights, activations),
      down_(rates, model.hidden(), model.moe_intermediate(), weights, activations),
      swiglu_(rates, 4.0 * model.moe_intermediate() + BytesOf(model.moe_intermediate(), activations)),
      permutation_(permutation) {}

double RooflineExperts::Picoseconds(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const {
  const auto row_tiles_of = [this](int32_t tokens) {
    return (static_cast<uint32_t>(tokens) + tile_tokens_ - 1) / tile_tokens_;
  };
  if (scale.empty()) {
    int64_t active = 0, pairs = 0, row_tiles = 0;
    for (const int32_t tokens : tokens_per_slot) {
      active += tokens > 0;
      pairs += tokens;
      row_tiles += row_tiles_of(tokens);
    }
    const auto tiles = static_cast<double>(row_tiles);
    return Sum(static_cast<double>(active), static_cast<double>(pairs), tiles, tiles);
  }
  EPSIM_CHECK(scale.size() == tokens_per_slot.size());
  double active = 0, pairs = 0, row_tiles = 0, scaled_row_tiles = 0;
  for (size_t slot = 0; slot < scale.size(); ++slot) {
    const int32_t tokens = tokens_per_slot[slot];
    const double tiles = row_tiles_of(tokens);
    active += tokens > 0 ? scale[slot] : 0;
    pairs += scale[slot] * tokens;
    row_tiles += tiles;
    scaled_row_tiles += scale[slot] * tiles;
  }
  return Sum(active, pairs, row_tiles, scaled_row_tiles);
}

double RooflineExperts::LeastPicoseconds(double active, double pairs, int gpus) const {
  active /= gpus;
  pairs /= gpus;
  return gate_up_.floor() + gate_up_.LeastBeyondFloor(active, pairs) + down_.floor() +
         down_.LeastBeyondFloor(active, pairs) + Streamed(pairs);
}

double RooflineExperts::Sum(double active, double pairs, double row_tiles, double scaled_row_tiles) const {
  return gate_up_.floor() + gate_up_.BeyondFloor(active, pairs, row_tiles, scaled_row_tiles) + down_.floor() +
         down_.BeyondFloor(active, pairs, row_tiles, scaled_row_tiles) + Streamed(pairs);
}

double RooflineExperts::Streamed(double pairs) const {
  return swiglu_.Picoseconds(pairs) + (permutation_.has_value() ? permutation_->Picoseconds(pairs, pairs) : 0);
}

RooflinePermutation::RooflinePermutation(const GpuRates& rates, const ModelSpec& model, NumberType activations,
                                         RooflineConfig::GemmLibrary library)
    : scatters_(library != RooflineConfig::TRITON),
      scatter_(rates, 2 * BytesOf(model.hidden(), activations)),
      gather_(rates, 2.0 * model.hidden()) {}

double RooflinePermutation::Picoseconds(double tokens, double pairs) const {
  return (scatters_ ? scatter_.Picoseconds(pairs) : 0) + gather_.Picoseconds(pairs + tokens);
}

}  // namespace epsim
