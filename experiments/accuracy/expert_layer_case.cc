#include "experiments/accuracy/expert_layer_case.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "experiments/accuracy/kernel_timing.h"
#include "experiments/accuracy/power_law_load.h"
#include "models/costs/roofline_experts.h"
#include "policies/placement/eplb_placement.h"

namespace epsim {
namespace {

constexpr int kDraws = 64, kNearestDraws = 8;
constexpr int64_t kMostTokens = 1 << 24;

// What the hottest rank has to do.
struct RankWork {
  std::vector<int32_t> tokens_per_slot;
  double tokens = 0;  // Distinct ones, expected.
  double balancedness = 1;
};

// `count` tokens in as many equal parts as differ by one at most.
std::vector<int32_t> SpreadEvenly(int64_t count, int parts) {
  std::vector<int32_t> shares(parts, static_cast<int32_t>(count / parts));
  for (int64_t i = 0; i < count % parts; ++i) ++shares[i];
  return shares;
}

// Where experts, with these tokens, lie: [slots] tokens.
std::vector<int32_t> PlaceInSlots(const std::vector<int32_t>& load, const PlacementShape& shape, bool by_eplb) {
  if (!by_eplb) return load;
  const std::vector<float> weight(load.begin(), load.end());
  const Placement placement = Eplb(weight, shape, EplbPlacement::GLOBAL);
  std::vector<int32_t> slots(shape.slots);
  for (int e = 0; e < shape.experts; ++e) {
    const auto replicas = placement.replicas(Layer(0), LogicalExpert(e));
    const std::vector<int32_t> shares = SpreadEvenly(load[e], static_cast<int>(replicas.size()));
    for (size_t i = 0; i < replicas.size(); ++i) slots[Index(replicas[i])] = shares[i];
  }
  return slots;
}

// The rank with the most pairs.  A token is on it unless each of its experts is elsewhere, taken to be independent.
RankWork Hottest(const std::vector<int32_t>& slots, int ranks, int64_t global_tokens) {
  const size_t per_rank = slots.size() / ranks;
  int64_t most = -1, all = 0;
  size_t hottest = 0;
  for (int rank = 0; rank < ranks; ++rank) {
    const auto begin = slots.begin() + static_cast<std::ptrdiff_t>(rank * per_rank);
    const int64_t pairs = std::accumulate(begin, begin + static_cast<std::ptrdiff_t>(per_rank), int64_t{0});
    all += pairs;
    if (pairs > most) {
      most = pairs;
      hottest = rank * per_rank;
    }
  }
  RankWork work;
  work.tokens_per_slot.assign(&slots[hottest], &slots[hottest] + per_rank);
  double absent = 1;
  for (const int32_t tokens : work.tokens_per_slot) absent *= 1 - std::min(1.0, 1.0 * tokens / global_tokens);
  work.tokens = static_cast<double>(global_tokens) * (1 - absent);
  work.balancedness = static_cast<double>(all) / ranks / static_cast<double>(most);
  return work;
}

absl::StatusOr<ModelSpec> LayerOf(const Case& measured) {
  ModelSpec model;
  ASSIGN_OR_RETURN(const int64_t hidden, IntegerField(measured, "hidden", 1, 1 << 20));
  ASSIGN_OR_RETURN(const int64_t inter, IntegerField(measured, "inter", 1, 1 << 20));
  ASSIGN_OR_RETURN(const int64_t experts, IntegerField(measured, "experts", 1, 4096));
  ASSIGN_OR_RETURN(const int64_t top_k, IntegerField(measured, "top_k", 1, experts));
  model.set_hidden(static_cast<uint32_t>(hidden));
  model.set_moe_intermediate(static_cast<uint32_t>(inter));
  model.set_experts(static_cast<uint32_t>(experts));
  model.set_top_k(static_cast<uint32_t>(top_k));
  return model;
}

class ExpertLayerCase : public CaseModel {
 public:
  static absl::StatusOr<std::unique_ptr<ExpertLayerCase>> Create(const Case& measured) {
    auto result = std::make_unique<ExpertLayerCase>();
    ASSIGN_OR_RETURN(result->timing_, KernelTiming::Create(measured));
    ASSIGN_OR_RETURN(result->model_, LayerOf(measured));
    ASSIGN_OR_RETURN(result->type_, NumberTypeField(measured, "dtype"));
    return result;
  }

  // `permutes`: rows come in the order of tokens.
  void Take(std::vector<RankWork> works, bool permutes, std::string group) {
    works_ = std::move(works);
    permutes_ = permutes;
    group_ = std::move(group);
  }

  absl::StatusOr<double> Predict(const LibraryTiming* timing) override {
    ASSIGN_OR_RETURN(const GpuRates rates, timing_.Rates(timing));
    const RooflineExperts experts(rates, model_, type_, type_, std::nullopt);
    const RooflinePermutation permutation(rates, model_, type_, timing_.gemm_library());
    double sum = 0;
    for (const RankWork& work : works_) {
      sum += experts.Picoseconds(work.tokens_per_slot, {});
      if (!permutes_) continue;
      const auto pairs = std::accumulate(work.tokens_per_slot.begin(), work.tokens_per_slot.end(), int64_t{0});
      sum += permutation.Picoseconds(work.tokens, static_cast<double>(pairs));
    }
    return sum / static_cast<double>(works_.size()) / 1e6;
  }

  const std::string& group() const override { return group_; }

  std::optional<double> balancedness() const override {
    double sum = 0;
    for (const RankWork& work : works_) sum += work.balancedness;
    return sum / static_cast<double>(works_.size());
  }

  const ModelSpec& model() const { return model_; }

 private:
  KernelTiming timing_;
  ModelSpec model_;
  NumberType type_{};
  std::vector<RankWork> works_;
  bool permutes_ = false;
  std::string group_;
};

// The hottest rank of each draw, or of those that come nearest to what the case states.
absl::StatusOr<std::vector<RankWork>> DrawWorks(const Case& measured, const PlacementShape& shape, int top_k,
                                                int64_t tokens, bool by_eplb) {
  ASSIGN_OR_RETURN(const double alpha, NumberField(measured, "alpha", 0.01, 100));
  RandomStream random(0, measured.id);
  std::vector<RankWork> works;
  for (int draw = 0; draw < kDraws; ++draw) {
    const std::vector<int32_t> load =
        DrawPowerLawLoad(static_cast<int32_t>(tokens), shape.experts, top_k, alpha, random);
    works.push_back(Hottest(PlaceInSlots(load, shape, by_eplb), shape.ranks, tokens));
  }
  if (HasField(measured, "hottest_rank_tokens")) {
    ASSIGN_OR_RETURN(const int64_t stated, IntegerField(measured, "hottest_rank_tokens", 1, tokens));
    std::stable_sort(works.begin(), works.end(), [&](const RankWork& a, const RankWork& b) {
      return std::abs(a.tokens - static_cast<double>(stated)) < std::abs(b.tokens - static_cast<double>(stated));
    });
    works.resize(kNearestDraws);
  }
  return works;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CaseModel>> NewExpertLayerCase(const Case& measured) {
  ASSIGN_OR_RETURN(std::unique_ptr<ExpertLayerCase> result, ExpertLayerCase::Create(measured));
  const int experts = static_cast<int>(result->model().experts()), top_k = static_cast<int>(result->model().top_k());
  ASSIGN_OR_RETURN(const int64_t ranks, IntegerField(measured, "ep", 1, experts));
  ASSIGN_OR_RETURN(const int64_t slots, IntegerField(measured, "slots", experts, 1 << 16));
  ASSIGN_OR_RETURN(const int64_t tokens, IntegerField(measured, "global_tokens", 1, kMostTokens));
  ASSIGN_OR_RETURN(const std::string distribution, TextField(measured, "distribution"));
  ASSIGN_OR_RETURN(const std::string mode, TextField(measured, "mode"));
  const bool by_eplb = HasField(measured, "eplb_slots");
  const PlacementShape shape{
      .layers = 1, .experts = experts, .slots = static_cast<int>(slots), .ranks = static_cast<int>(ranks)};
  if (slots % ranks != 0 || (slots != experts && !by_eplb)) {
    return absl::InvalidArgumentError(absl::StrCat(measured.place, ": slots: ", slots, " of ", experts, " experts on ",
                                                   ranks, " ranks cannot be placed"));
  }
  std::vector<RankWork> works;
  if (distribution == "uniform") {
    const std::vector<int32_t> load = SpreadEvenly(tokens * top_k, experts);
    works.push_back(Hottest(PlaceInSlots(load, shape, by_eplb), shape.ranks, tokens));
  } else if (distribution == "power_law") {
    ASSIGN_OR_RETURN(works, DrawWorks(measured, shape, top_k, tokens, by_eplb));
  } else {
    return absl::UnimplementedError(absl::StrCat("distribution \"", distribution, "\" is not modelled"));
  }
  result->Take(
      std::move(works), mode != "generation",
      absl::StrCat(measured.platform, "/", mode, "/ep", ranks, "/slots", slots, "/tokens", tokens, "/", distribution));
  return result;
}

absl::StatusOr<std::unique_ptr<CaseModel>> NewFusedMoeCase(const Case& measured) {
  ASSIGN_OR_RETURN(std::unique_ptr<ExpertLayerCase> result, ExpertLayerCase::Create(measured));
  ASSIGN_OR_RETURN(const int64_t tokens, IntegerField(measured, "tokens", 1, kMostTokens));
  ASSIGN_OR_RETURN(const int64_t active, IntegerField(measured, "active_experts", 1, result->model().experts()));
  RankWork work;
  work.tokens_per_slot = SpreadEvenly(tokens * result->model().top_k(), static_cast<int>(active));
  work.tokens = static_cast<double>(tokens);
  result->Take({work}, true,
               absl::StrCat(measured.platform, "/hidden", result->model().hidden(), "/inter",
                            result->model().moe_intermediate(), "/tokens", tokens));
  return result;
}

}  // namespace epsim
