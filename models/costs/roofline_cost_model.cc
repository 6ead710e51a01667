#include "models/costs/roofline_cost_model.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/catalogue.h"
#include "models/costs/roofline_attention.h"
#include "models/costs/roofline_experts.h"
#include "models/costs/roofline_kernel.h"
#include "models/number_type.h"

namespace epsim {
namespace {

// gate and up, SwiGLU, down.
class Mlp {
 public:
  Mlp(const GpuRates& rates, int64_t hidden, int64_t inter, NumberType weights)
      : gate_up_(rates, 2 * inter, hidden, weights, ProjectionActivations(weights)),
        swiglu_(rates, 6.0 * inter),
        down_(rates, hidden, inter, weights, ProjectionActivations(weights)) {}

  double Picoseconds(double tokens) const {
    return gate_up_.Picoseconds(tokens) + swiglu_.Picoseconds(tokens) + down_.Picoseconds(tokens);
  }

 private:
  Gemm gate_up_;
  Elementwise swiglu_;
  Gemm down_;
};

class RooflineCostModel final : public CostModel {
 public:
  // REQUIRES: `model` is valid, no type in `precision` is NUMBER_TYPE_DEFAULT, the GPU has what they need.
  RooflineCostModel(const GpuRates& rates, const Precision& precision, const ModelSpec& model,
                    std::optional<RooflinePermutation> permutation, std::vector<std::string> notes)
      : model_(model),
        layers_(CountAttentionLayers(model)),
        context_attention_(NewContextAttention(model, rates, precision.other_weights(), precision.kv_cache())),
        block_norm_(rates, 8.0 * model.hidden()),
        dense_(rates, model.hidden(), model.dense_intermediate(), precision.other_weights()),
        shared_(rates, model.hidden(), model.shared_intermediate(), precision.other_weights()),
        gate_(rates, model.experts(), model.hidden(), BF16, BF16),
        top_k_(rates, 2.0 * model.experts() + 8.0 * model.top_k()),
        head_norm_(rates, 4.0 * model.hidden()),
        head_(rates, model.vocabulary(), model.hidden(), precision.other_weights(),
              ProjectionActivations(precision.other_weights())),
        sent_(precision.dispatch() != BF16 ? precision.dispatch() : precision.expert_activations()),
        quantize_(rates, 2.0 * model.hidden() + static_cast<double>(ActivationBytes(model.hidden(), sent_).count())),
        experts_(rates, model, precision.expert_weights(), precision.expert_activations(), permutation),
        notes_(std::move(notes)) {
    if (model.has_linear_attention()) {
      linear_attention_ = NewLinearAttention(model, rates, precision.other_weights());
    }
  }

  Cost Attention(const AttentionLoad& load) const override {
    const AttentionWork work = SplitAttention(load);
    double ps = layers_.full * context_attention_->Picoseconds(work);
    if (linear_attention_ != nullptr) {
      ps += layers_.other * linear_attention_->Picoseconds(work);
    } else if (layers_.other > 0) {
      const AttentionWork local = SeenLocally(work, model_.local_window(), model_.local_chunks());
      ps += layers_.other * context_attention_->Picoseconds(local);
    }
    return Roofline(ps / (layers_.full + layers_.other));
  }

  Cost DenseMlp(int64_t tokens) const override {
    if (model_.dense_intermediate() == 0) return {};
    const auto t = static_cast<double>(tokens);
    return Roofline(block_norm_.Picoseconds(t) + dense_.Picoseconds(t));
  }

  Cost Router(int64_t tokens) const override {
    const auto t = static_cast<double>(tokens);
    return Roofline(block_norm_.Picoseconds(t) + gate_.Picoseconds(t) + top_k_.Picoseconds(t));
  }

  Cost Quantize(int64_t tokens) const override {
    return sent_ != BF16 ? Roofline(quantize_.Picoseconds(static_cast<double>(tokens))) : Cost{};
  }

  Cost SharedExperts(int64_t tokens) const override {
    if (model_.shared_experts() == 0) return {};
    return Roofline(shared_.Picoseconds(static_cast<double>(tokens)));
  }

  Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const override {
    return Roofline(experts_.Picoseconds(tokens_per_slot, scale));
  }

  Cost LeastExperts(double active, double pairs, int gpus) const override {
    return Roofline(experts_.LeastPicoseconds(active, pairs, gpus));
  }

  Cost LmHead(int64_t tokens) const override {
    const auto t = static_cast<double>(tokens);
    return Roofline(head_norm_.Picoseconds(t) + head_.Picoseconds(t));
  }

  std::vector<std::string> notes() const override { return notes_; }

 private:
  static Cost Roofline(double picoseconds) {
    return {.time = RoundUpWithinStep(picoseconds), .source = CostSource::kRoofline};
  }

  const ModelSpec model_;
  const AttentionLayers layers_;
  const std::unique_ptr<RooflineAttention> context_attention_;
  std::unique_ptr<RooflineAttention> linear_attention_;  // Null without.
  const Elementwise block_norm_;
  const Mlp dense_, shared_;
  const Gemm gate_;
  const Elementwise top_k_, head_norm_;
  const Gemm head_;
  const NumberType sent_;  // The experts' input, as it leaves the router's rank or at the latest meets their weights.
  const Elementwise quantize_;

  const RooflineExperts experts_;
  const std::vector<std::string> notes_;
};

// Whether `gpu` has tensor cores for `type`; `otherwise` says what would do.
absl::Status CheckUnits(const GpuSpec& gpu, const char* field, NumberType type, const char* otherwise) {
  if (IsEightBit(type) && gpu.fp8().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("precision.", field, ": ", NumberType_Name(type), ", but gpu \"",
                                                   gpu.name(), "\" has no fp8 units; ", otherwise, " would do"));
  }
  if (IsFourBit(type) && gpu.fp4().empty()) {
    return absl::InvalidArgumentError(absl::StrCat("precision.", field, ": ", NumberType_Name(type), ", but gpu \"",
                                                   gpu.name(), "\" has no fp4 units; ", otherwise, " would do"));
  }
  return absl::OkStatus();
}

absl::Status CheckPrecision(const Precision& precision, const GpuSpec& gpu) {
  const NumberType weights = precision.expert_weights(), activations = precision.expert_activations();
  if (weights < activations) {
    return absl::InvalidArgumentError(absl::StrCat("precision.expert_activations: ", NumberType_Name(activations),
                                                   " with expert_weights ", NumberType_Name(weights), "; ",
                                                   weights == BF16 ? "BF16" : "FP8 or BF16", " would do"));
  }
  if (IsEightBit(weights) && IsEightBit(activations)) {
    RETURN_IF_ERROR(CheckUnits(gpu, "expert_weights", weights, "BF16, or FP8 with expert_activations BF16,"));
  }
  RETURN_IF_ERROR(CheckUnits(gpu, "expert_activations", activations, "BF16"));
  if (IsEightBit(precision.other_weights())) {
    RETURN_IF_ERROR(CheckUnits(gpu, "other_weights", precision.other_weights(), "BF16"));
  }
  RETURN_IF_ERROR(CheckUnits(gpu, "dispatch", precision.dispatch(), gpu.fp8().empty() ? "BF16" : "BF16 or FP8"));
  if (precision.kv_cache() != BF16 && precision.kv_cache() != FP8) {
    return absl::InvalidArgumentError(absl::StrCat("precision.kv_cache: ", NumberType_Name(precision.kv_cache()),
                                                   " is no cache format; BF16 or FP8 would do"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<CostModel>> NewRooflineCostModel(const RooflineConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu) {
  RETURN_IF_ERROR(ValidateModel(model));
  RETURN_IF_ERROR(CheckPrecision(precision, gpu));
  std::vector<std::string> notes;
  ASSIGN_OR_RETURN(const RooflineConfig complete, CompleteRooflineConfig(config, gpu, &notes));
  ASSIGN_OR_RETURN(const GpuRates rates, MakeGpuRates(complete, gpu));
  std::optional<RooflinePermutation> permutes;
  if (permutation) permutes.emplace(rates, model, precision.expert_activations(), complete.gemm_library());
  return std::make_unique<RooflineCostModel>(rates, precision, model, permutes, std::move(notes));
}

}  // namespace epsim
