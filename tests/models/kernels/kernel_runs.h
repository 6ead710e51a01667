// The kernels of models/kernels on what a test program executes them on.  kernel_runs.cc is compiled twice: for the
// emulated GPU (cuda_on_cpu.h), and for a real one.  Inputs are copied to the device, outputs are poisoned before the
// run and copied back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/kernels/expert_choice.h"
#include "models/kernels/router.h"

namespace epsim::kernel_runs {

// Why nothing can be run here; empty if it can.
std::string NoDevice();

struct Routed {
  std::vector<int32_t> ids;    // [tokens, top_k]
  std::vector<float> weights;  // Likewise.
};
absl::StatusOr<Routed> Route(const RouterOptions& options, const std::vector<float>& logits,
                             const std::vector<float>& bias);

struct ChosenByExperts {
  std::vector<int32_t> ids;     // [tokens, top_k]
  std::vector<int32_t> counts;  // [tokens]
  std::vector<float> weights;   // [tokens, top_k]
};
// `plain`: by the composition from library primitives.
absl::StatusOr<ChosenByExperts> ChooseByExperts(const ExpertChoiceOptions& options, const std::vector<float>& scores,
                                                bool plain);

}  // namespace epsim::kernel_runs
