// The kernels of models/kernels on what a test program executes them on.  kernel_runs.cc is compiled twice: for the
// emulated GPU (cuda_on_cpu.h), and for a real one.  Inputs are copied to the device, outputs are poisoned before the
// run and copied back.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "models/kernels/co_occurrence.h"
#include "models/kernels/expert_choice.h"
#include "models/kernels/permute.h"
#include "models/kernels/router.h"
#include "models/kernels/sampled_load.h"

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

struct PlannedRows {
  std::vector<int32_t> rows;             // [tokens, top_k]
  std::vector<int32_t> offsets;          // [slots + 1]
  std::vector<int32_t> counts;           // [slots]
  std::vector<int32_t> tokens_per_rank;  // [ranks]
};
absl::StatusOr<PlannedRows> PlanRows(const PermuteOptions& options, const std::vector<int32_t>& slots);

// The byte that is where nothing was written.
inline constexpr uint8_t kUnwritten = 0xa5;
struct PermutedRows {
  std::vector<uint8_t> values;  // [permuted_rows, bytes.values]
  std::vector<uint8_t> scales;  // [permuted_rows, bytes.scales]
};
absl::StatusOr<PermutedRows> PermuteRows(const PermuteOptions& options, const RowBytes& bytes, size_t permuted_rows,
                                         const std::vector<int32_t>& rows, const std::vector<uint8_t>& values,
                                         const std::vector<uint8_t>& scales);
absl::StatusOr<std::vector<uint16_t>> UnpermuteRows(const PermuteOptions& options, int hidden,
                                                    const std::vector<int32_t>& rows, const std::vector<float>& weights,
                                                    const std::vector<uint16_t>& permuted);

absl::StatusOr<std::vector<int32_t>> CountCoOccurrence(const CoOccurrenceOptions& options,
                                                       const std::vector<int32_t>& ids);

absl::StatusOr<ActiveSums> SampleActiveExperts(const SampledLoadOptions& options);

}  // namespace epsim::kernel_runs
