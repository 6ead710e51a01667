#include "models/costs/measured_cost_model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "engine/unit_text.h"
#include "models/calibration/work_demand.h"
#include "models/costs/expert_surface.h"
#include "models/costs/roofline_attention.h"
#include "models/costs/roofline_cost_model.h"
#include "models/costs/roofline_kernel.h"
#include "models/costs/token_curve.h"
#include "models/number_type.h"

namespace epsim {
namespace {

double Picoseconds(const KernelTime& time) { return time.median_us() * 1e6; }

// Of sizes, in octaves.
double Distance(std::pair<int64_t, int64_t> a, std::pair<int64_t, int64_t> b) {
  const auto octaves = [](int64_t x, int64_t y) { return std::abs(std::log2(static_cast<double>(x) / y)); };
  return octaves(a.first, b.first) + octaves(a.second, b.second);
}

// Measurements of one kind of kernel, told apart by numbers and two sizes.
template <typename Value>
class BySize {
 public:
  using Sizes = std::pair<int64_t, int64_t>;

  Value* Of(int numbers, Sizes sizes, const Value& fresh) {
    return &values_.try_emplace({numbers, sizes}, fresh).first->second;
  }
  // The nearest in size with these numbers; null where there is none.  Of equally near ones the smaller.
  const Value* Nearest(int numbers, Sizes sizes, bool* exact) const {
    const Value* nearest = nullptr;
    double least = std::numeric_limits<double>::infinity();
    for (const auto& [key, value] : values_) {
      if (key.first != numbers) continue;
      const double distance = Distance(key.second, sizes);
      if (distance >= least) continue;
      least = distance;
      nearest = &value;
      *exact = key.second == sizes;
    }
    return nearest;
  }

 private:
  std::map<std::pair<int, Sizes>, Value> values_;
};

// One kernel of a stage.
struct Kernel {
  const TokenCurve* curve = nullptr;  // Null: was not measured.
  TokenDemand demand;
  double per_token = 1;  // What the curve counts, of each token of the stage.
  bool exact = false;    // The curve is of this very kernel.
};

// Kernels one after the other.
class Stage {
 public:
  // Without kernels: of the fall-back.
  Stage() = default;
  explicit Stage(std::vector<Kernel> kernels) : kernels_(std::move(kernels)) {}

  bool measured() const { return !kernels_.empty(); }
  Cost At(int64_t tokens) const {
    CurveTime sum;
    for (const Kernel& kernel : kernels_) Add(kernel, static_cast<double>(tokens), &sum);
    return {RoundUpWithinStep(sum.picoseconds), sum.inside ? CostSource::kMeasured : CostSource::kExtended};
  }
  static void Add(const Kernel& kernel, double tokens, CurveTime* sum) {
    const double count = tokens * kernel.per_token;
    const CurveTime time = kernel.curve->At(count, kernel.demand);
    sum->picoseconds += time.picoseconds;
    sum->inside = sum->inside && time.inside && (kernel.exact || tokens == 0);
  }

 private:
  std::vector<Kernel> kernels_;
};

// All that was measured, as curves and surfaces.
class KernelCurves {
 public:
  KernelCurves(const Calibration& calibration, const GpuPeaks& peaks) : peaks_(peaks) {
    // Floors first.  Without work the experts are three kernels.
    double launch = std::numeric_limits<double>::infinity();
    for (const Measurement& m : calibration.measurements) {
      if (m.work().has_launch() && m.work().launch().kernels() > 0) {
        launch = std::min(launch, Picoseconds(m.time()) / m.work().launch().kernels());
      }
    }
    has_launch_ = std::isfinite(launch);
    launch_ = has_launch_ ? launch : 0;
    std::map<std::tuple<uint32_t, uint32_t, int, int>, double> without_tokens;
    for (const Measurement& m : calibration.measurements) {
      if (!m.work().has_expert_mlp()) continue;
      const ExpertMlpWork& work = m.work().expert_mlp();
      double& floor = without_tokens
                          .try_emplace({work.hidden(), work.inter(), work.weights(), work.activations()},
                                       std::numeric_limits<double>::infinity())
                          .first->second;
      const bool empty = std::all_of(work.tokens_per_slot().begin(), work.tokens_per_slot().end(),
                                     [](uint32_t tokens) { return tokens == 0; });
      if (empty) floor = std::min(floor, Picoseconds(m.time()));
    }
    for (const Measurement& m : calibration.measurements) {
      if (!m.work().has_expert_mlp()) {
        Add(m.work(), Picoseconds(m.time()));
        continue;
      }
      const ExpertMlpWork& work = m.work().expert_mlp();
      const double floor = without_tokens[{work.hidden(), work.inter(), work.weights(), work.activations()}];
      AddExperts(work, std::isfinite(floor) ? floor : 3 * launch_, Picoseconds(m.time()));
    }
  }

  bool has_launch() const { return has_launch_; }

  Kernel Gemm(int64_t n, int64_t k, NumberType values) const {
    Kernel kernel{.demand = GemmDemand(peaks_, n, k, values)};
    kernel.curve = gemms_.Nearest(values, {n, k}, &kernel.exact);
    return kernel;
  }
  Kernel Router(const ModelSpec& model) const {
    Kernel kernel{.demand = RouterDemand(peaks_, model.experts(), model.top_k())};
    const std::pair<int64_t, int64_t> sizes{model.experts(), model.top_k()};
    kernel.curve = routers_.Nearest(RouterKind(model.scoring(), model.expert_groups()), sizes, &kernel.exact);
    for (int kind = 0; kernel.curve == nullptr && kind < 6; ++kind) {
      kernel.curve = routers_.Nearest(kind, sizes, &kernel.exact);
      kernel.exact = false;
    }
    return kernel;
  }
  // One row a token.
  Kernel Permute(int64_t hidden, NumberType values, bool weighted_return) const {
    Kernel kernel{.demand = PermuteDemand(peaks_, 1, hidden, values)};
    kernel.curve = permutes_.Nearest(PermuteKind(values, weighted_return), {hidden, 1}, &kernel.exact);
    if (kernel.curve == nullptr) {
      kernel.curve = permutes_.Nearest(PermuteKind(BF16, weighted_return), {hidden, 1}, &kernel.exact);
      kernel.exact = false;
    }
    return kernel;
  }
  // A kernel that reads and writes so many bytes a token in all; what is counted are bytes copied.
  Kernel Streaming(double bytes_per_token) const {
    return {.curve = copies_.empty() ? nullptr : &copies_,
            .demand = CopyDemand(peaks_),
            .per_token = bytes_per_token / 2,
            .exact = true};
  }
  const ExpertSurface* Experts(int64_t hidden, int64_t inter, NumberType weights, NumberType activations,
                               bool* exact) const {
    return experts_.Nearest(weights * 16 + activations, {hidden, inter}, exact);
  }

 private:
  static int RouterKind(ModelSpec::Scoring scoring, uint32_t groups) { return scoring * 2 + (groups > 1 ? 1 : 0); }
  static int PermuteKind(NumberType values, bool weighted_return) { return values * 2 + (weighted_return ? 1 : 0); }

  void Add(const KernelWork& work, double ps) {
    const TokenCurve fresh(launch_);
    if (work.has_gemm() && work.gemm().m() > 0) {
      const GemmWork& gemm = work.gemm();
      gemms_.Of(gemm.values(), {gemm.n(), gemm.k()}, fresh)
          ->Add(gemm.m(), GemmDemand(peaks_, gemm.n(), gemm.k(), gemm.values()).Picoseconds(gemm.m()), ps);
    } else if (work.has_router() && work.router().tokens() > 0) {
      const RouterWork& router = work.router();
      routers_.Of(RouterKind(router.scoring(), router.groups()), {router.experts(), router.top_k()}, fresh)
          ->Add(router.tokens(), RouterDemand(peaks_, router.experts(), router.top_k()).Picoseconds(router.tokens()),
                ps);
    } else if (work.has_permute() && work.permute().tokens() > 0) {
      const PermuteWork& permute = work.permute();
      permutes_
          .Of(PermuteKind(permute.values(), permute.weighted_return()), {permute.hidden(), permute.top_k()}, fresh)
          ->Add(
              permute.tokens(),
              PermuteDemand(peaks_, permute.top_k(), permute.hidden(), permute.values()).Picoseconds(permute.tokens()),
              ps);
    } else if (work.has_device_copy() && work.device_copy().size_bytes() > 0) {
      if (copies_.empty()) copies_ = fresh;
      const auto bytes = static_cast<double>(work.device_copy().size_bytes());
      copies_.Add(bytes, CopyDemand(peaks_).Picoseconds(bytes), ps);
    }
  }

  void AddExperts(const ExpertMlpWork& work, double floor, double ps) {
    const std::vector<int32_t> tokens(work.tokens_per_slot().begin(), work.tokens_per_slot().end());
    if (std::all_of(tokens.begin(), tokens.end(), [](int32_t t) { return t == 0; })) return;  // The floor.
    const ExpertSurface fresh(ExpertDemand(peaks_, work.hidden(), work.inter(), work.weights(), work.activations()),
                              floor);
    experts_.Of(work.weights() * 16 + work.activations(), {work.hidden(), work.inter()}, fresh)->Add(tokens, ps);
  }

  const GpuPeaks peaks_;
  bool has_launch_ = false;
  double launch_ = 0;
  BySize<TokenCurve> gemms_;     // [n, k]
  BySize<TokenCurve> routers_;   // [experts, top_k]
  BySize<TokenCurve> permutes_;  // [hidden, top_k]
  TokenCurve copies_;
  BySize<ExpertSurface> experts_;  // [hidden, inter]
};

class MeasuredCostModel final : public CostModel {
 public:
  // REQUIRES: `fallback` is there.
  MeasuredCostModel(const Calibration& calibration, const MeasuredConfig& config, const Precision& precision,
                    bool permutation, const ModelSpec& model, const GpuPeaks& peaks,
                    std::unique_ptr<CostModel> fallback)
      : curves_(calibration, peaks), fallback_(std::move(fallback)) {
    notes_.push_back(absl::StrCat("times were measured on ", HardwareText(calibration.hardware),
                                  calibration.date.empty() ? "" : ", " + calibration.date));
    const int64_t hidden = model.hidden();
    const NumberType other = precision.other_weights();
    const NumberType sent = precision.dispatch() != BF16 ? precision.dispatch() : precision.expert_activations();
    Kernel norm = curves_.Streaming(8.0 * hidden);
    std::vector<Kernel> dense = {norm};
    AddMlp(hidden, model.dense_intermediate(), other, &dense);
    std::vector<Kernel> shared;
    AddMlp(hidden, model.shared_intermediate(), other, &shared);
    if (model.dense_intermediate() > 0) dense_ = Make("dense MLP", std::move(dense));
    if (model.shared_experts() > 0) shared_ = Make("shared experts", std::move(shared));
    router_ = Make("router", {norm, curves_.Gemm(model.experts(), hidden, BF16), curves_.Router(model)});
    if (sent != BF16) {
      quantize_ = Make("quantisation", {curves_.Streaming(2.0 * hidden + Activation(hidden, sent))});
    }
    std::vector<Kernel> head = {curves_.Streaming(4.0 * hidden)};
    AddGemm(model.vocabulary(), hidden, other, &head);
    head_ = Make("head", std::move(head));
    has_dense_ = model.dense_intermediate() > 0;
    has_shared_ = model.shared_experts() > 0;
    quantizes_ = sent != BF16;

    const NumberType weights = precision.expert_weights(), activations = precision.expert_activations();
    asked_ = ExpertDemand(peaks, hidden, model.moe_intermediate(), weights, activations);
    const ExpertSurface* surface =
        curves_.Experts(hidden, model.moe_intermediate(), weights, activations, &exact_experts_);
    if (surface != nullptr) {
      experts_ = *surface;
      experts_->ChooseTile();
    } else {
      missing_.push_back(absl::StrCat("routed experts (no expert_mlp with weights in ", NumberType_Name(weights),
                                      " and activations in ", NumberType_Name(activations), ")"));
    }
    if (permutation) {
      permutes_ = {curves_.Permute(hidden, precision.dispatch(), false), curves_.Permute(hidden, BF16, true)};
      for (const Kernel& kernel : permutes_) {
        if (kernel.curve != nullptr) continue;
        if (experts_.has_value()) {
          missing_.push_back("routed experts (no permute, which costs.permutation: false would leave out)");
        }
        experts_.reset();
      }
    }
    if (!curves_.has_launch()) missing_.push_back("kernels without tokens (no launch)");
    missing_.push_back("attention (`epsim calibrate` has no kernel for it)");
    if (config.fallback() == MeasuredConfig::ROOFLINE) {
      notes_.push_back(absl::StrCat("not measured, so by roofline: ", absl::StrJoin(missing_, ", ")));
    }
  }

  const std::vector<std::string>& missing() const { return missing_; }
  void AddNote(std::string note) { notes_.push_back(std::move(note)); }
  std::vector<std::string> notes() const override { return notes_; }

  Cost Attention(const AttentionLoad& load) const override { return fallback_->Attention(load); }
  Cost DenseMlp(int64_t tokens) const override {
    if (!has_dense_) return {};
    return dense_.measured() ? dense_.At(tokens) : fallback_->DenseMlp(tokens);
  }
  Cost Router(int64_t tokens) const override {
    return router_.measured() ? router_.At(tokens) : fallback_->Router(tokens);
  }
  Cost Quantize(int64_t tokens) const override {
    if (!quantizes_) return {};
    return quantize_.measured() ? quantize_.At(tokens) : fallback_->Quantize(tokens);
  }
  Cost SharedExperts(int64_t tokens) const override {
    if (!has_shared_) return {};
    return shared_.measured() ? shared_.At(tokens) : fallback_->SharedExperts(tokens);
  }
  Cost LmHead(int64_t tokens) const override { return head_.measured() ? head_.At(tokens) : fallback_->LmHead(tokens); }

  Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const override {
    if (!experts_.has_value()) return fallback_->RoutedExperts(tokens_per_slot, scale);
    const ExpertLoad load = ExpertLoad::Of(tokens_per_slot, experts_->tile());
    const ExpertLoad weighted = scale.empty() ? load : ExpertLoad::Of(tokens_per_slot, scale, experts_->tile());
    CurveTime sum = experts_->At(load, weighted, asked_);
    sum.inside = sum.inside && (exact_experts_ || load.pairs == 0);
    // With scale s an expert takes s times as long in all, its rows included.
    for (const Kernel& kernel : permutes_) {
      CurveTime time{0, true};
      Stage::Add(kernel, load.pairs, &time);
      if (load.pairs > 0 && !scale.empty()) {
        const double floor = kernel.curve->floor();
        time.picoseconds = floor + (time.picoseconds - floor) * weighted.pairs / load.pairs;
      }
      sum.picoseconds += time.picoseconds;
      sum.inside = sum.inside && time.inside;
    }
    return {RoundUpWithinStep(sum.picoseconds), sum.inside ? CostSource::kMeasured : CostSource::kExtended};
  }

  // Demand is convex and at the best utilisation that was measured; permutation is left out.
  Cost LeastExperts(double active, double pairs, int gpus) const override {
    if (!experts_.has_value()) return fallback_->LeastExperts(active, pairs, gpus);
    return {RoundUpWithinStep(experts_->AtLeast(asked_, active / gpus, pairs / gpus)), CostSource::kExtended};
  }

 private:
  static double Activation(int64_t values, NumberType type) {
    return static_cast<double>(ActivationBytes(values, type).count());
  }

  void AddGemm(int64_t n, int64_t k, NumberType weights, std::vector<Kernel>* kernels) const {
    const NumberType activations = ProjectionActivations(weights);
    if (activations != weights) {
      kernels->push_back({});  // No such GEMM is measured.
      return;
    }
    if (activations != BF16) kernels->push_back(curves_.Streaming(2.0 * k + Activation(k, activations)));
    kernels->push_back(curves_.Gemm(n, k, weights));
  }

  void AddMlp(int64_t hidden, int64_t inter, NumberType weights, std::vector<Kernel>* kernels) const {
    if (inter == 0) return;
    AddGemm(2 * inter, hidden, weights, kernels);
    kernels->push_back(curves_.Streaming(6.0 * inter));
    AddGemm(hidden, inter, weights, kernels);
  }

  // The stage, or none where a kernel is missing.
  Stage Make(const char* name, std::vector<Kernel> kernels) {
    for (const Kernel& kernel : kernels) {
      if (kernel.curve != nullptr) continue;
      missing_.push_back(name);
      return Stage();
    }
    return Stage(std::move(kernels));
  }

  const KernelCurves curves_;
  const std::unique_ptr<CostModel> fallback_;
  std::vector<std::string> missing_, notes_;
  Stage dense_, shared_, router_, quantize_, head_;
  bool has_dense_ = false, has_shared_ = false, quantizes_ = false;
  ExpertDemand asked_;
  std::optional<ExpertSurface> experts_;  // None: of the fall-back.
  bool exact_experts_ = false;
  std::vector<Kernel> permutes_;  // Empty without permutation.
};

}  // namespace

std::optional<std::string> OtherGpu(const Hardware& hardware, const GpuSpec& gpu) {
  const absl::StatusOr<Bytes> memory = ParseBytes(gpu.memory());
  const auto measured = static_cast<double>(hardware.memory_bytes());
  const double ratio = memory.ok() && measured > 0 ? measured / static_cast<double>(memory->count()) : 1;
  const bool same_sms = gpu.sms() == 0 || hardware.sms() == 0 || gpu.sms() == hardware.sms();
  if (ratio > 0.85 && ratio < 1.15 && same_sms) return std::nullopt;
  return absl::StrCat("the platform has another GPU, \"", gpu.name(), "\", than times were taken on, ", hardware.gpu());
}

absl::StatusOr<MeasuredConfig> CompleteMeasuredConfig(const MeasuredConfig& config, const GpuSpec& gpu) {
  MeasuredConfig complete = config;
  if (!MeasuredConfig::Fallback_IsValid(config.fallback())) {
    return absl::InvalidArgumentError(
        absl::StrCat("measured.fallback: no fall-back has the number ", config.fallback()));
  }
  if (config.fallback() == MeasuredConfig::NONE && config.has_roofline()) {
    return absl::InvalidArgumentError("measured.roofline: nothing falls back on it; set fallback: ROOFLINE as well");
  }
  if (config.fallback() == MeasuredConfig::ROOFLINE) {
    ASSIGN_OR_RETURN(*complete.mutable_roofline(), CompleteRooflineConfig(config.roofline(), gpu, nullptr));
  }
  return complete;
}

absl::StatusOr<std::unique_ptr<CostModel>> NewMeasuredCostModel(const Calibration& calibration,
                                                                const MeasuredConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu) {
  // Also checks that GPU, precision and model go together.
  ASSIGN_OR_RETURN(std::unique_ptr<CostModel> fallback,
                   NewRooflineCostModel(config.roofline(), precision, permutation, model, gpu));
  ASSIGN_OR_RETURN(const GpuPeaks peaks, MakeGpuPeaks(gpu));
  auto costs = std::make_unique<MeasuredCostModel>(calibration, config, precision, permutation, model, peaks,
                                                   std::move(fallback));
  if (config.fallback() == MeasuredConfig::NONE) {
    return absl::InvalidArgumentError(absl::StrCat("measured.table: ", calibration.place, " has no measurement for ",
                                                   absl::StrJoin(costs->missing(), ", "),
                                                   "; fallback: ROOFLINE would take the roofline for these"));
  }
  if (std::optional<std::string> other = OtherGpu(calibration.hardware, gpu)) costs->AddNote(*std::move(other));
  return costs;
}

absl::StatusOr<std::unique_ptr<CostModel>> NewMeasuredCostModel(const MeasuredConfig& config,
                                                                const Precision& precision, bool permutation,
                                                                const ModelSpec& model, const GpuSpec& gpu) {
  const absl::StatusOr<Calibration> calibration = FindCalibration(config.table());
  if (!calibration.ok()) {
    return absl::Status(calibration.status().code(), absl::StrCat("measured.table: ", calibration.status().message()));
  }
  return NewMeasuredCostModel(*calibration, config, precision, permutation, model, gpu);
}

}  // namespace epsim
