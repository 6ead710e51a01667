// KernelWorks, written short.
#pragma once

#include <cstdint>
#include <vector>

#include "models/kernels/clock/kernel_work.pb.h"

namespace epsim::kernel_works {

inline KernelWork Gemm(NumberType values, uint32_t m, uint32_t n, uint32_t k) {
  KernelWork work;
  work.mutable_gemm()->set_values(values);
  work.mutable_gemm()->set_m(m);
  work.mutable_gemm()->set_n(n);
  work.mutable_gemm()->set_k(k);
  return work;
}

inline KernelWork ExpertMlp(NumberType values, uint32_t hidden, uint32_t inter, const std::vector<uint32_t>& tokens) {
  KernelWork work;
  ExpertMlpWork* mlp = work.mutable_expert_mlp();
  mlp->set_hidden(hidden);
  mlp->set_inter(inter);
  mlp->set_weights(values);
  mlp->set_activations(values);
  for (const uint32_t count : tokens) mlp->add_tokens_per_slot(count);
  return work;
}

inline KernelWork DeviceCopy(uint64_t size_bytes) {
  KernelWork work;
  work.mutable_device_copy()->set_size_bytes(size_bytes);
  return work;
}

inline KernelWork HostCopy(uint64_t size_bytes, bool to_device) {
  KernelWork work;
  work.mutable_host_copy()->set_size_bytes(size_bytes);
  work.mutable_host_copy()->set_to_device(to_device);
  return work;
}

inline KernelWork Launch(uint32_t kernels) {
  KernelWork work;
  work.mutable_launch()->set_kernels(kernels);
  return work;
}

inline KernelWork Router(uint32_t tokens, uint32_t experts, uint32_t top_k, ModelSpec::Scoring scoring) {
  KernelWork work;
  RouterWork* router = work.mutable_router();
  router->set_tokens(tokens);
  router->set_experts(experts);
  router->set_top_k(top_k);
  router->set_scoring(scoring);
  return work;
}

inline KernelWork ExpertChoice(uint32_t tokens, uint32_t experts, uint32_t top_k, double capacity, bool fused) {
  KernelWork work;
  ExpertChoiceWork* choice = work.mutable_expert_choice();
  choice->set_tokens(tokens);
  choice->set_experts(experts);
  choice->set_top_k(top_k);
  choice->set_capacity(capacity);
  choice->set_fused(fused);
  return work;
}

inline KernelWork Permute(NumberType values, uint32_t tokens, uint32_t top_k, uint32_t slots, uint32_t hidden,
                          bool weighted_return) {
  KernelWork work;
  PermuteWork* permute = work.mutable_permute();
  permute->set_values(values);
  permute->set_tokens(tokens);
  permute->set_top_k(top_k);
  permute->set_slots(slots);
  permute->set_hidden(hidden);
  permute->set_weighted_return(weighted_return);
  return work;
}

inline KernelWork CoOccurrence(uint32_t tokens, uint32_t experts, uint32_t top_k) {
  KernelWork work;
  CoOccurrenceWork* co_occurrence = work.mutable_co_occurrence();
  co_occurrence->set_tokens(tokens);
  co_occurrence->set_experts(experts);
  co_occurrence->set_top_k(top_k);
  return work;
}

inline KernelWork SampledLoad(uint32_t batches, uint32_t tokens, uint32_t experts, uint32_t top_k, uint32_t chips) {
  KernelWork work;
  SampledLoadWork* load = work.mutable_sampled_load();
  load->set_batches(batches);
  load->set_tokens(tokens);
  load->set_experts(experts);
  load->set_top_k(top_k);
  load->set_chips(chips);
  return work;
}

}  // namespace epsim::kernel_works
