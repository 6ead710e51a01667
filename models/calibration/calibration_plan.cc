#include "models/calibration/calibration_plan.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>
#include <string>
#include <utility>

#include "models/calibration/calibration_table.h"
#include "models/number_type.h"

namespace epsim {
namespace {

constexpr int64_t kMostPairs = 65'536;

// Works in order, each once.
class Plan {
 public:
  void Add(const KernelWork& work) {
    if (keys_.insert(WorkKey(work)).second) works_.push_back(work);
  }
  std::vector<KernelWork> Finish() && { return std::move(works_); }

 private:
  std::set<std::string> keys_;
  std::vector<KernelWork> works_;
};

std::vector<uint32_t> Pick(bool quick, std::vector<uint32_t> few, std::vector<uint32_t> all) {
  return quick ? std::move(few) : std::move(all);
}

void AddCeilings(bool quick, Plan* plan) {
  for (const uint32_t kernels : Pick(quick, {1, 64}, {1, 8, 64, 256})) {
    KernelWork work;
    work.mutable_launch()->set_kernels(kernels);
    plan->Add(work);
  }
  for (int log_bytes = 12; log_bytes <= 30; log_bytes += quick ? 6 : 2) {
    KernelWork work;
    work.mutable_device_copy()->set_size_bytes(uint64_t{1} << log_bytes);
    plan->Add(work);
  }
  for (const bool to_device : {true, false}) {
    for (int log_bytes = 16; log_bytes <= 28; log_bytes += quick ? 12 : 3) {
      KernelWork work;
      work.mutable_host_copy()->set_size_bytes(uint64_t{1} << log_bytes);
      work.mutable_host_copy()->set_to_device(to_device);
      plan->Add(work);
    }
  }
}

void AddRouting(const ModelSpec& model, bool quick, Plan* plan) {
  for (const uint32_t tokens : Pick(quick, {1, 512}, {1, 32, 256, 2048, 8192})) {
    KernelWork work;
    RouterWork* router = work.mutable_router();
    router->set_tokens(tokens);
    router->set_experts(model.experts());
    router->set_top_k(model.top_k());
    router->set_scoring(model.scoring());
    if (model.expert_groups() > 1) {
      router->set_groups(model.expert_groups());
      router->set_top_groups(model.top_groups());
    }
    plan->Add(work);
  }
  for (const uint32_t tokens : Pick(quick, {1024}, {1024, 8192})) {
    for (const bool fused : {false, true}) {
      KernelWork work;
      ExpertChoiceWork* choice = work.mutable_expert_choice();
      choice->set_tokens(tokens);
      choice->set_experts(model.experts());
      choice->set_top_k(model.top_k());
      choice->set_capacity(1);
      choice->set_fused(fused);
      plan->Add(work);
    }
    KernelWork work;
    work.mutable_co_occurrence()->set_tokens(tokens);
    work.mutable_co_occurrence()->set_experts(model.experts());
    work.mutable_co_occurrence()->set_top_k(model.top_k());
    plan->Add(work);
  }
}

void AddPermutes(const ModelSpec& model, bool quick, Plan* plan) {
  constexpr std::pair<NumberType, bool> kKinds[] = {{BF16, false}, {FP8, false}, {BF16, true}};
  for (const auto& [values, weighted_return] : kKinds) {
    for (const uint32_t tokens : Pick(quick, {1, 4096}, {1, 64, 1024, 8192, 65536})) {
      KernelWork work;
      PermuteWork* permute = work.mutable_permute();
      permute->set_tokens(tokens);
      permute->set_top_k(1);
      permute->set_slots(32);
      permute->set_hidden(model.hidden());
      permute->set_values(values);
      permute->set_weighted_return(weighted_return);
      plan->Add(work);
    }
  }
}

void AddGemm(int64_t n, int64_t k, NumberType values, const std::vector<uint32_t>& tokens, Plan* plan) {
  if (n == 0 || k == 0) return;
  for (const uint32_t m : tokens) {
    KernelWork work;
    work.mutable_gemm()->set_m(m);
    work.mutable_gemm()->set_n(static_cast<uint32_t>(n));
    work.mutable_gemm()->set_k(static_cast<uint32_t>(k));
    work.mutable_gemm()->set_values(values);
    plan->Add(work);
  }
}

void AddAttention(const ModelSpec& model, const std::vector<uint32_t>& tokens, Plan* plan) {
  const int64_t hidden = model.hidden(), heads = model.heads();
  if (model.has_mla()) {
    const MlaAttention& mla = model.mla();
    const int64_t queries = heads * (mla.qk_nope_head_dim() + mla.qk_rope_head_dim());
    AddGemm(mla.q_lora_rank(), hidden, BF16, tokens, plan);
    AddGemm(queries, mla.q_lora_rank() > 0 ? mla.q_lora_rank() : hidden, BF16, tokens, plan);
    AddGemm(mla.kv_lora_rank() + mla.qk_rope_head_dim(), hidden, BF16, tokens, plan);
    AddGemm(hidden, heads * mla.v_head_dim(), BF16, tokens, plan);
  } else {
    const GqaAttention& gqa = model.gqa();
    const int64_t queries = heads * gqa.head_dim() * (gqa.output_gate() ? 2 : 1);
    AddGemm(queries + int64_t{2} * gqa.kv_heads() * gqa.head_dim(), hidden, BF16, tokens, plan);
    AddGemm(hidden, heads * gqa.head_dim(), BF16, tokens, plan);
  }
}

void AddGemms(const ModelSpec& model, bool quick, Plan* plan) {
  const std::vector<uint32_t> fine = Pick(quick, {1, 256, 4096}, {1, 16, 64, 128, 256, 512, 2048, 8192});
  const std::vector<uint32_t> coarse = Pick(quick, {256}, {1, 64, 512, 4096});
  const int64_t hidden = model.hidden();
  AddGemm(model.experts(), hidden, BF16, fine, plan);
  for (const int64_t inter : {model.shared_intermediate(), model.dense_intermediate()}) {
    for (const NumberType values : {BF16, FP8}) {
      AddGemm(2 * inter, hidden, values, fine, plan);
      AddGemm(hidden, inter, values, fine, plan);
    }
  }
  AddGemm(model.vocabulary(), hidden, BF16, coarse, plan);
  AddAttention(model, coarse, plan);
}

KernelWork ExpertWork(const ModelSpec& model, NumberType type, const std::vector<int32_t>& tokens_per_slot) {
  KernelWork work;
  ExpertMlpWork* experts = work.mutable_expert_mlp();
  experts->set_hidden(model.hidden());
  experts->set_inter(model.moe_intermediate());
  experts->set_weights(type);
  experts->set_activations(type);
  for (const int32_t tokens : tokens_per_slot) experts->add_tokens_per_slot(static_cast<uint32_t>(tokens));
  return work;
}

// `shares` of `pairs` tokens, rounded down, what is left over to the first; in an order in which neighbours differ.
std::vector<int32_t> Deal(const std::vector<double>& shares, int64_t pairs) {
  const double sum = std::accumulate(shares.begin(), shares.end(), 0.0);
  std::vector<int32_t> tokens;
  for (const double share : shares) tokens.push_back(static_cast<int32_t>(share / sum * static_cast<double>(pairs)));
  int64_t left = pairs - std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
  for (size_t i = 0; left > 0; i = (i + 1) % tokens.size(), --left) ++tokens[i];
  const size_t slots = tokens.size();
  size_t stride = 7;
  while (std::gcd(stride, slots) > 1) ++stride;
  std::vector<int32_t> dealt(slots);
  for (size_t i = 0; i < slots; ++i) dealt[(3 + i * stride) % slots] = tokens[i];
  return dealt;
}

}  // namespace

std::vector<std::vector<int32_t>> ExpertHistograms(int64_t experts, bool quick) {
  std::vector<std::vector<int32_t>> histograms;
  const int64_t few = std::min<int64_t>(16, experts), many = std::min<int64_t>(64, experts);
  histograms.push_back(std::vector<int32_t>(few));
  std::vector<int64_t> slots = {1, 4, few, many};
  if (quick) slots = {1, few};
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  for (const int64_t active : slots) {
    for (const uint32_t tokens : Pick(quick, {1, 64, 1024}, {1, 8, 64, 256, 1024, 4096})) {
      if (active > experts || active * tokens > kMostPairs) continue;
      histograms.push_back(std::vector<int32_t>(active, static_cast<int32_t>(tokens)));
    }
  }
  if (many == 64 && !quick) {
    for (const int32_t tokens : {8, 256}) {
      std::vector<int32_t> histogram(64);
      for (size_t slot = 1; slot < 64; slot += 4) histogram[slot] = tokens;
      histograms.push_back(std::move(histogram));
    }
  }
  std::vector<int64_t> unequal = {few, many};
  unequal.erase(std::unique(unequal.begin(), unequal.end()), unequal.end());
  for (const int64_t count : unequal) {
    for (const uint32_t mean : Pick(quick, {64}, {8, 64, 512})) {
      for (const double exponent : {0.6, 1.2}) {
        std::vector<double> shares;
        for (int64_t i = 1; i <= count; ++i) shares.push_back(std::pow(static_cast<double>(i), -exponent));
        histograms.push_back(Deal(shares, count * mean));
      }
    }
  }
  if (many >= 16) {
    for (const uint32_t mean : Pick(quick, {64}, {8, 128})) {
      std::vector<double> shares(many, 0.25 / static_cast<double>(many - 4));
      std::fill_n(shares.begin(), 4, 0.75 / 4);
      histograms.push_back(Deal(shares, many * mean));
    }
  }
  return histograms;
}

std::vector<KernelWork> PlanCalibration(const CalibrationRequest& request) {
  Plan plan;
  AddCeilings(request.quick, &plan);
  for (const NumberType values : {BF16, FP8}) AddGemm(8192, 8192, values, {8192}, &plan);
  for (const ModelSpec& model : request.models) AddRouting(model, request.quick, &plan);
  for (const ModelSpec& model : request.models) AddPermutes(model, request.quick, &plan);
  for (const ModelSpec& model : request.models) AddGemms(model, request.quick, &plan);
  for (const NumberType type : {BF16, FP8}) {
    for (const ModelSpec& model : request.models) {
      for (const auto& histogram : ExpertHistograms(model.experts(), request.quick)) {
        plan.Add(ExpertWork(model, type, histogram));
      }
    }
    for (const TracedHistograms& traced : request.traced) {
      for (const auto& histogram : traced.tokens_per_slot) plan.Add(ExpertWork(traced.model, type, histogram));
    }
  }
  return std::move(plan).Finish();
}

}  // namespace epsim
