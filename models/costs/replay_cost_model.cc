#include "models/costs/replay_cost_model.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "engine/status_macros.h"
#include "models/calibration/calibration_table.h"
#include "models/calibration/work_demand.h"
#include "models/costs/expert_surface.h"
#include "models/costs/measured_cost_model.h"
#include "models/costs/roofline_cost_model.h"
#include "models/costs/roofline_kernel.h"
#include "models/costs/step_executor.h"
#include "models/costs/token_curve.h"

namespace epsim {
namespace {

constexpr uint32_t kMostWorks = 1000;
constexpr uint32_t kLaunches = 64;  // For the floor of one.

double Picoseconds(const KernelTime& time) { return time.median_us() * 1e6; }

// A kernel over tokens: executed at some, extended to the others.
class ExecutedKernel {
 public:
  ExecutedKernel() = default;
  explicit ExecutedKernel(const TokenDemand& demand) : demand_(demand) {}

  void SetFloor(double picoseconds) { curve_ = TokenCurve(floor_ = picoseconds); }
  bool knows(int64_t tokens) const { return tokens == 0 || times_.contains(tokens); }
  bool empty() const { return times_.empty(); }
  double floor() const { return floor_; }
  void Add(int64_t tokens, double picoseconds) {
    times_[tokens] = picoseconds;
    curve_.Add(static_cast<double>(tokens), demand_.Picoseconds(static_cast<double>(tokens)), picoseconds);
  }
  // Inside: executed.  REQUIRES: not empty, or no tokens.
  CurveTime At(int64_t tokens) const {
    if (tokens == 0) return {floor_, true};
    if (const auto time = times_.find(tokens); time != times_.end()) return {time->second, true};
    return {curve_.At(static_cast<double>(tokens), demand_).picoseconds, false};
  }

 private:
  TokenDemand demand_;
  double floor_ = 0;
  std::map<int64_t, double> times_;  // By tokens.
  TokenCurve curve_;
};

TokenDemand NormDemand(const GpuPeaks& peaks, int64_t hidden) {
  TokenDemand demand = CopyDemand(peaks);
  demand.token *= 4.0 * static_cast<double>(hidden);
  return demand;
}

std::set<int64_t> Chosen(const google::protobuf::RepeatedField<uint32_t>& chosen) {
  return {chosen.begin(), chosen.end()};
}

class ReplayCostModel final : public CostModel, public StepExecutor {
 public:
  ReplayCostModel(const ReplayConfig& config, const Precision& precision, bool permutation, const ModelSpec& model,
                  const GpuSpec& gpu, const GpuPeaks& peaks, std::unique_ptr<CostModel> others,
                  std::shared_ptr<WorkTimes> times)
      : config_(config),
        precision_(precision),
        permutation_(permutation),
        model_(model),
        gpu_(gpu),
        layers_(Chosen(config.layers())),
        ranks_(Chosen(config.ranks())),
        others_(std::move(others)),
        times_(std::move(times)),
        demand_(peaks, model.hidden(), model.moe_intermediate(), precision.expert_weights(),
                precision.expert_activations()),
        norm_(NormDemand(peaks, model.hidden())),
        gate_(GemmDemand(peaks, model.experts(), model.hidden(), BF16)),
        router_(RouterDemand(peaks, model.experts(), model.top_k())),
        permute_(PermuteDemand(peaks, 1, model.hidden(), precision.dispatch())),
        unpermute_(PermuteDemand(peaks, 1, model.hidden(), BF16)) {}

  Cost Attention(const AttentionLoad& load) const override { return others_->Attention(load); }
  Cost DenseMlp(int64_t tokens) const override { return others_->DenseMlp(tokens); }
  Cost Quantize(int64_t tokens) const override { return others_->Quantize(tokens); }
  Cost SharedExperts(int64_t tokens) const override { return others_->SharedExperts(tokens); }
  Cost LmHead(int64_t tokens) const override { return others_->LmHead(tokens); }

  Cost Router(int64_t tokens) const override {
    if (norm_.empty() || gate_.empty() || router_.empty()) return others_->Router(tokens);
    return Sum({norm_.At(tokens), gate_.At(tokens), router_.At(tokens)});
  }

  Cost RoutedExperts(absl::Span<const int32_t> tokens_per_slot, absl::Span<const double> scale) const override {
    const bool extends =
        surface_.has_value() && !surface_->empty() && (!permutation_ || (!permute_.empty() && !unpermute_.empty()));
    if (!extends) return others_->RoutedExperts(tokens_per_slot, scale);
    const ExpertLoad load = ExpertLoad::Of(tokens_per_slot, surface_->tile());
    const ExpertLoad weighted = scale.empty() ? load : ExpertLoad::Of(tokens_per_slot, scale, surface_->tile());
    CurveTime experts = surface_->At(load, weighted, demand_);
    experts.inside = load.pairs == 0;
    if (const auto executed = histograms_.find({tokens_per_slot.begin(), tokens_per_slot.end()});
        load.pairs > 0 && executed != histograms_.end()) {
      const double share = demand_.Picoseconds(weighted.active, weighted.pairs, weighted.rows) /
                           demand_.Picoseconds(load.active, load.pairs, load.rows);
      experts = {scale.empty() ? executed->second : Scaled(executed->second, surface_->floor(), share), true};
    }
    if (!permutation_) return Sum({experts});
    const auto pairs = static_cast<int64_t>(load.pairs);
    CurveTime there = permute_.At(pairs), back = unpermute_.At(pairs);
    if (pairs > 0 && !scale.empty()) {
      there.picoseconds = Scaled(there.picoseconds, permute_.floor(), weighted.pairs / load.pairs);
      back.picoseconds = Scaled(back.picoseconds, unpermute_.floor(), weighted.pairs / load.pairs);
    }
    return Sum({experts, there, back});
  }

  // Nothing reads or computes faster than the GPU's peaks; if works were executed on a faster one, than the best of
  // them.
  Cost LeastExperts(double active, double pairs, int gpus) const override {
    double least = demand_.Picoseconds(active / gpus, pairs / gpus, pairs / gpus);
    if (surface_.has_value() && !surface_->empty()) {
      least = std::min(least, surface_->AtLeast(demand_, active / gpus, pairs / gpus));
    }
    return {RoundUpWithinStep(least), CostSource::kExtended};
  }

  StepExecutor* executor() const override { return const_cast<ReplayCostModel*>(this); }

  std::vector<std::string> notes() const override {
    std::vector<std::string> notes = others_->notes();
    if (executed_ == 0) return notes;
    const Hardware hardware = times_->hardware(config_.cache()).value_or(Hardware());
    notes.push_back(absl::StrCat("executed: ", executed_, " distinct works",
                                 left_out_ ? ", the most that costs.replay.most_works allows" : "", ", on ",
                                 HardwareText(hardware)));
    if (std::optional<std::string> other = OtherGpu(hardware, gpu_)) notes.push_back(*std::move(other));
    return notes;
  }

  absl::Status Execute(const ExecutedStep& step, const StopToken& stop) override {
    RETURN_IF_ERROR(ExecuteFloors(step, stop));
    const bool chosen = steps_++ % config_.every_steps() == 0;
    if (!chosen) return absl::OkStatus();
    Plan plan;
    for (size_t i = 0; i < step.router_tokens.size(); ++i) {
      if (!IsChosen(ranks_, static_cast<int64_t>(i) % step.ranks)) continue;
      AddTokens(NormWork(step.router_tokens[i]), step.router_tokens[i], &norm_, &plan);
      AddTokens(GateWork(step.router_tokens[i]), step.router_tokens[i], &gate_, &plan);
      AddTokens(RouterWorkOf(step.router_tokens[i]), step.router_tokens[i], &router_, &plan);
    }
    std::set<std::vector<int32_t>> planned;
    for (int layer = 0; layer < step.layers; ++layer) {
      if (!IsChosen(layers_, layer)) continue;
      for (int piece = 0; piece < step.pieces; ++piece) {
        const absl::Span<const int32_t> slots = step.tokens_per_slot(layer, piece);
        const size_t of_rank = slots.size() / step.ranks;
        for (int rank = 0; rank < step.ranks; ++rank) {
          if (!IsChosen(ranks_, rank)) continue;
          AddExperts(slots.subspan(rank * of_rank, of_rank), &planned, &plan);
        }
      }
    }
    return Run(plan, stop);
  }

 private:
  struct Plan {
    std::vector<KernelWork> works;
    // Where the time of each goes: a kernel and its tokens, or a histogram.
    struct Place {
      ExecutedKernel* kernel;
      int64_t tokens;
      std::vector<int32_t> histogram;
    };
    std::vector<Place> places;
    std::set<std::pair<const ExecutedKernel*, int64_t>> tokens;
  };

  static bool IsChosen(const std::set<int64_t>& chosen, int64_t index) {
    return chosen.empty() || chosen.contains(index);
  }
  // With `share` times as much to do beyond the floor.
  static double Scaled(double picoseconds, double floor, double share) {
    return floor + std::max(0.0, picoseconds - floor) * share;
  }
  static Cost Sum(std::initializer_list<CurveTime> times) {
    double ps = 0;
    bool executed = true;
    for (const CurveTime& time : times) {
      ps += time.picoseconds;
      executed = executed && time.inside;
    }
    return {RoundUpWithinStep(ps), executed ? CostSource::kReplay : CostSource::kExtended};
  }

  // Reads and writes 8 * hidden bytes a token.
  KernelWork NormWork(int64_t tokens) const {
    KernelWork work;
    work.mutable_device_copy()->set_size_bytes(static_cast<uint64_t>(tokens) * 4 * model_.hidden());
    return work;
  }
  KernelWork GateWork(int64_t tokens) const {
    KernelWork work;
    GemmWork* gemm = work.mutable_gemm();
    gemm->set_m(static_cast<uint32_t>(tokens));
    gemm->set_n(model_.experts());
    gemm->set_k(model_.hidden());
    gemm->set_values(BF16);
    return work;
  }
  KernelWork RouterWorkOf(int64_t tokens) const {
    KernelWork work;
    RouterWork* router = work.mutable_router();
    router->set_tokens(static_cast<uint32_t>(tokens));
    router->set_experts(model_.experts());
    router->set_top_k(model_.top_k());
    router->set_scoring(model_.scoring());
    if (model_.expert_groups() > 1) {
      router->set_groups(model_.expert_groups());
      router->set_top_groups(model_.top_groups());
    }
    return work;
  }
  // A row a token-expert pair: how many of them were one token before is not told.
  KernelWork PermuteWorkOf(int64_t pairs, size_t slots, bool weighted_return) const {
    KernelWork work;
    PermuteWork* permute = work.mutable_permute();
    permute->set_tokens(static_cast<uint32_t>(pairs));
    permute->set_top_k(1);
    permute->set_slots(static_cast<uint32_t>(slots));
    permute->set_hidden(model_.hidden());
    permute->set_values(weighted_return ? BF16 : precision_.dispatch());
    permute->set_weighted_return(weighted_return);
    return work;
  }
  KernelWork ExpertWork(absl::Span<const int32_t> tokens_per_slot) const {
    KernelWork work;
    ExpertMlpWork* experts = work.mutable_expert_mlp();
    experts->set_hidden(model_.hidden());
    experts->set_inter(model_.moe_intermediate());
    experts->set_weights(precision_.expert_weights());
    experts->set_activations(precision_.expert_activations());
    for (const int32_t tokens : tokens_per_slot) experts->add_tokens_per_slot(static_cast<uint32_t>(tokens));
    return work;
  }

  bool HasRoom(const Plan& plan, size_t more) {
    if (executed_ + plan.works.size() + more <= config_.most_works()) return true;
    left_out_ = true;
    return false;
  }
  void AddTokens(KernelWork work, int64_t tokens, ExecutedKernel* kernel, Plan* plan) {
    if (kernel->knows(tokens) || plan->tokens.contains({kernel, tokens}) || !HasRoom(*plan, 1)) return;
    plan->tokens.insert({kernel, tokens});
    plan->works.push_back(std::move(work));
    plan->places.push_back({kernel, tokens, {}});
  }
  void AddExperts(absl::Span<const int32_t> tokens_per_slot, std::set<std::vector<int32_t>>* planned, Plan* plan) {
    std::vector<int32_t> histogram(tokens_per_slot.begin(), tokens_per_slot.end());
    int64_t pairs = 0;
    for (const int32_t tokens : histogram) pairs += tokens;
    if (pairs == 0) return;  // The floors.
    if (!histograms_.contains(histogram) && !planned->contains(histogram) && HasRoom(*plan, 1)) {
      planned->insert(histogram);
      plan->works.push_back(ExpertWork(tokens_per_slot));
      plan->places.push_back({nullptr, 0, std::move(histogram)});
    }
    if (!permutation_) return;
    AddTokens(PermuteWorkOf(pairs, tokens_per_slot.size(), false), pairs, &permute_, plan);
    AddTokens(PermuteWorkOf(pairs, tokens_per_slot.size(), true), pairs, &unpermute_, plan);
  }

  // What kernels take without work, before the first step.
  absl::Status ExecuteFloors(const ExecutedStep& step, const StopToken& stop) {
    if (surface_.has_value()) return absl::OkStatus();
    if (!ranks_.empty() && *ranks_.rbegin() >= step.ranks) {
      return absl::InvalidArgumentError(
          absl::StrCat("costs.replay.ranks: ", *ranks_.rbegin(), ", but there are ", step.ranks, " ranks, from 0"));
    }
    std::vector<KernelWork> works(1);
    works[0].mutable_launch()->set_kernels(kLaunches);
    const size_t slots = step.layers == 0 ? 0 : step.tokens_per_slot(0, 0).size() / step.ranks;
    works.push_back(ExpertWork(std::vector<int32_t>(slots)));
    ASSIGN_OR_RETURN(const std::vector<KernelTime> times, Get(works, stop));
    const double launch = Picoseconds(times[0]) / kLaunches;
    for (ExecutedKernel* kernel : {&norm_, &gate_, &router_, &permute_, &unpermute_}) kernel->SetFloor(launch);
    surface_.emplace(demand_, Picoseconds(times[1]));
    return absl::OkStatus();
  }

  absl::Status Run(const Plan& plan, const StopToken& stop) {
    ASSIGN_OR_RETURN(const std::vector<KernelTime> times, Get(plan.works, stop));
    for (size_t i = 0; i < times.size(); ++i) {
      const Plan::Place& place = plan.places[i];
      if (place.kernel != nullptr) {
        place.kernel->Add(place.tokens, Picoseconds(times[i]));
      } else {
        histograms_.emplace(place.histogram, Picoseconds(times[i]));
        surface_->Add(place.histogram, Picoseconds(times[i]));
      }
    }
    executed_ += plan.works.size();
    return absl::OkStatus();
  }

  absl::StatusOr<std::vector<KernelTime>> Get(absl::Span<const KernelWork> works, const StopToken& stop) {
    absl::StatusOr<std::vector<KernelTime>> times = times_->Get(works, config_.cache(), stop);
    if (times.ok() || absl::IsCancelled(times.status())) return times;
    return absl::Status(times.status().code(), absl::StrCat("costs.replay: ", times.status().message()));
  }

  const ReplayConfig config_;
  const Precision precision_;
  const bool permutation_;
  const ModelSpec model_;
  const GpuSpec gpu_;
  const std::set<int64_t> layers_, ranks_;  // Empty: all.
  const std::unique_ptr<CostModel> others_;
  const std::shared_ptr<WorkTimes> times_;
  const ExpertDemand demand_;
  int64_t steps_ = 0;
  size_t executed_ = 0;
  bool left_out_ = false;  // Something was not executed because of most_works.
  ExecutedKernel norm_, gate_, router_, permute_, unpermute_;
  std::map<std::vector<int32_t>, double> histograms_;  // [slots of a rank] -> picoseconds.
  std::optional<ExpertSurface> surface_;               // From the first step on.
};

}  // namespace

absl::StatusOr<ReplayConfig> CompleteReplayConfig(const ReplayConfig& config, const GpuSpec& gpu) {
  ReplayConfig complete = config;
  if (config.every_steps() == 0) complete.set_every_steps(1);
  if (config.most_works() == 0) complete.set_most_works(kMostWorks);
  switch (config.others_case()) {
    case ReplayConfig::kMeasured: {
      ASSIGN_OR_RETURN(*complete.mutable_measured(), CompleteMeasuredConfig(config.measured(), gpu));
      break;
    }
    case ReplayConfig::kRoofline:
    case ReplayConfig::OTHERS_NOT_SET: {
      ASSIGN_OR_RETURN(*complete.mutable_roofline(), CompleteRooflineConfig(config.roofline(), gpu, nullptr));
      break;
    }
  }
  return complete;
}

absl::StatusOr<std::unique_ptr<CostModel>> NewReplayCostModel(const ReplayConfig& config, const Precision& precision,
                                                              bool permutation, const ModelSpec& model,
                                                              const GpuSpec& gpu, std::shared_ptr<WorkTimes> times) {
  absl::StatusOr<std::unique_ptr<CostModel>> others =
      config.has_measured() ? NewMeasuredCostModel(config.measured(), precision, permutation, model, gpu)
                            : NewRooflineCostModel(config.roofline(), precision, permutation, model, gpu);
  RETURN_IF_ERROR(others.status());
  for (const uint32_t layer : config.layers()) {
    if (layer < model.moe_layers()) continue;
    return absl::InvalidArgumentError(absl::StrCat("costs.replay.layers: ", layer, ", but the model has ",
                                                   model.moe_layers(), " MoE layers, from 0"));
  }
  ASSIGN_OR_RETURN(const GpuPeaks peaks, MakeGpuPeaks(gpu));
  return std::make_unique<ReplayCostModel>(config, precision, permutation, model, gpu, peaks, *std::move(others),
                                           std::move(times));
}

}  // namespace epsim
