#include "tests/models/kernels/kernel_runs.h"

#include <cstddef>

#include "absl/status/status.h"
#include "engine/status_macros.h"

#ifdef EPSIM_ON_GPU

#include <cuda_runtime_api.h>

#include "absl/strings/str_cat.h"
#include "engine/check.h"
#include "models/kernels/co_occurrence_gpu.h"
#include "models/kernels/cuda_status.h"
#include "models/kernels/expert_choice_gpu.h"
#include "models/kernels/permute_gpu.h"
#include "models/kernels/router_gpu.h"
#include "models/kernels/sampled_load_gpu.h"

#define ENQUEUE(name, ...) Launch##name(__VA_ARGS__, cudaStream_t{})

namespace epsim::kernel_runs {
namespace {

// An array in the GPU's memory.  A failed call ends the program: a test that goes on would compare garbage.
template <typename T>
class Array {
 public:
  Array(size_t size, int fill) : size_(size) {
    Check(cudaMalloc(&data_, size * sizeof(T) + 16), "cudaMalloc");
    Check(cudaMemset(data_, fill, size * sizeof(T) + 16), "cudaMemset");
  }
  explicit Array(const std::vector<T>& values) : Array(values.size(), 0) {
    Check(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
    Check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");  // The copy may still be under way.
  }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  ~Array() { cudaFree(data_); }

  T* data() { return static_cast<T*>(data_); }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    Check(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost), "cudaMemcpy");
    return values;
  }

 private:
  static void Check(cudaError_t error, const char* what) {
    const absl::Status status = CudaStatus(error, what);
    if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
    EPSIM_CHECK(status.ok());
  }
  size_t size_;
  void* data_ = nullptr;
};

absl::Status Finish() { return CudaStatus(cudaDeviceSynchronize(), "cudaDeviceSynchronize"); }

}  // namespace

std::string NoDevice() {
  int devices = 0;
  const absl::Status status = CudaStatus(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  if (!status.ok()) return absl::StrCat("no CUDA device: ", std::string(status.message()));
  return devices == 0 ? "no CUDA device" : "";
}

}  // namespace epsim::kernel_runs

#else

#include <algorithm>
#include <cstring>
#include <numeric>

#include "tests/models/kernels/cuda_on_cpu.h"
//
#include "models/kernels/co_occurrence.cuh"
#include "models/kernels/expert_choice.cuh"
#include "models/kernels/expert_choice_plain.cuh"
#include "models/kernels/permute.cuh"
#include "models/kernels/router.cuh"
#include "models/kernels/sampled_load.cuh"

#define ENQUEUE(name, ...) Enqueue##name(SortingCpuStream(), __VA_ARGS__)

namespace epsim {
namespace {

// With what the plain expert choice asks for.
class SortingCpuStream : public CpuStream {
 public:
  size_t SortBytes(int /*rows*/, int /*columns*/) const { return 0; }
  absl::Status SortRows(int rows, int columns, const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values,
                        int32_t* sorted_values, void* /*workspace*/, size_t /*workspace_bytes*/) const {
    std::vector<size_t> order(static_cast<size_t>(columns));
    for (int row = 0; row < rows; ++row) {
      const size_t first = static_cast<size_t>(row) * static_cast<size_t>(columns);
      std::iota(order.begin(), order.end(), first);
      std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return keys[a] > keys[b]; });
      for (size_t i = 0; i < order.size(); ++i) {
        sorted_keys[first + i] = keys[order[i]];
        sorted_values[first + i] = values[order[i]];
      }
    }
    return absl::OkStatus();
  }
};

size_t ExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options) { return FusedExpertChoiceBytes(options); }
size_t PlainExpertChoiceWorkspaceBytes(const ExpertChoiceOptions& options) {
  return PlainExpertChoiceBytes(SortingCpuStream(), options);
}
size_t RowPlanWorkspaceBytes(const PermuteOptions& options) { return RowPlanBytes(options); }

}  // namespace
}  // namespace epsim

namespace epsim::kernel_runs {
namespace {

template <typename T>
class Array {
 public:
  Array(size_t size, int fill) : values_(size) {
    if (size > 0) std::memset(values_.data(), fill, size * sizeof(T));
  }
  explicit Array(const std::vector<T>& values) : values_(values) {}
  T* data() { return values_.data(); }
  const std::vector<T>& Read() const { return values_; }

 private:
  std::vector<T> values_;
};

absl::Status Finish() { return absl::OkStatus(); }

}  // namespace

std::string NoDevice() { return ""; }

}  // namespace epsim::kernel_runs

#endif

namespace epsim::kernel_runs {
namespace {

constexpr int kPoison = kUnwritten;

// Null without values, as launchers take what is optional.
template <typename T>
T* DataOrNull(Array<T>* array, bool present) {
  return present ? array->data() : nullptr;
}

}  // namespace

absl::StatusOr<Routed> Route(const RouterOptions& options, const std::vector<float>& logits,
                             const std::vector<float>& bias) {
  const size_t size = static_cast<size_t>(options.tokens) * static_cast<size_t>(options.top_k);
  Array<float> logits_in(logits), bias_in(bias), weights(size, kPoison);
  Array<int32_t> ids(size, kPoison);
  RETURN_IF_ERROR(
      ENQUEUE(Router, options, logits_in.data(), DataOrNull(&bias_in, !bias.empty()), ids.data(), weights.data()));
  RETURN_IF_ERROR(Finish());
  return Routed{ids.Read(), weights.Read()};
}

absl::StatusOr<ChosenByExperts> ChooseByExperts(const ExpertChoiceOptions& options, const std::vector<float>& scores,
                                                bool plain) {
  const size_t tokens = static_cast<size_t>(options.tokens), size = tokens * static_cast<size_t>(options.top_k);
  Array<float> scores_in(scores), weights(size, kPoison);
  Array<int32_t> ids(size, kPoison), counts(tokens, kPoison);
  // A launcher of work that cannot be done says so without looking at the workspace.
  const size_t bytes = !CanImplement(options).ok() ? 0
                       : plain                     ? PlainExpertChoiceWorkspaceBytes(options)
                                                   : ExpertChoiceWorkspaceBytes(options);
  Array<uint8_t> workspace(bytes, kPoison);
  if (plain) {
    RETURN_IF_ERROR(ENQUEUE(PlainExpertChoice, options, scores_in.data(), ids.data(), counts.data(), weights.data(),
                            workspace.data()));
  } else {
    RETURN_IF_ERROR(
        ENQUEUE(ExpertChoice, options, scores_in.data(), ids.data(), counts.data(), weights.data(), workspace.data()));
  }
  RETURN_IF_ERROR(Finish());
  return ChosenByExperts{ids.Read(), counts.Read(), weights.Read()};
}

absl::StatusOr<PlannedRows> PlanRows(const PermuteOptions& options, const std::vector<int32_t>& slots) {
  const bool can = CanImplement(options).ok();
  const size_t of_slots = can ? static_cast<size_t>(options.slots) : 0;
  const size_t of_ranks = can ? static_cast<size_t>(options.ranks) : 0;
  Array<int32_t> slots_in(slots), rows(slots.size(), kPoison), offsets(of_slots + 1, kPoison);
  Array<int32_t> counts(of_slots, kPoison), tokens_per_rank(of_ranks, kPoison);
  Array<uint8_t> workspace(can ? RowPlanWorkspaceBytes(options) : 0, kPoison);
  RETURN_IF_ERROR(ENQUEUE(RowPlan, options, slots_in.data(), rows.data(), offsets.data(), counts.data(),
                          tokens_per_rank.data(), workspace.data()));
  RETURN_IF_ERROR(Finish());
  return PlannedRows{rows.Read(), offsets.Read(), counts.Read(), tokens_per_rank.Read()};
}

absl::StatusOr<PermutedRows> PermuteRows(const PermuteOptions& options, const RowBytes& bytes, size_t permuted_rows,
                                         const std::vector<int32_t>& rows, const std::vector<uint8_t>& values,
                                         const std::vector<uint8_t>& scales) {
  Array<int32_t> rows_in(rows);
  Array<uint8_t> values_in(values), scales_in(scales);
  Array<uint8_t> permuted_values(permuted_rows * bytes.values, kPoison);
  Array<uint8_t> permuted_scales(permuted_rows * bytes.scales, kPoison);
  RETURN_IF_ERROR(ENQUEUE(Permute, options, bytes, rows_in.data(), values_in.data(),
                          DataOrNull(&scales_in, bytes.scales > 0), permuted_values.data(),
                          DataOrNull(&permuted_scales, bytes.scales > 0)));
  RETURN_IF_ERROR(Finish());
  return PermutedRows{permuted_values.Read(), permuted_scales.Read()};
}

absl::StatusOr<std::vector<uint16_t>> UnpermuteRows(const PermuteOptions& options, int hidden,
                                                    const std::vector<int32_t>& rows, const std::vector<float>& weights,
                                                    const std::vector<uint16_t>& permuted) {
  Array<int32_t> rows_in(rows);
  Array<float> weights_in(weights);
  Array<uint16_t> permuted_in(permuted);
  Array<uint16_t> out(static_cast<size_t>(options.tokens) * static_cast<size_t>(hidden), kPoison);
  RETURN_IF_ERROR(
      ENQUEUE(Unpermute, options, hidden, rows_in.data(), weights_in.data(), permuted_in.data(), out.data()));
  RETURN_IF_ERROR(Finish());
  return out.Read();
}

absl::StatusOr<std::vector<int32_t>> CountCoOccurrence(const CoOccurrenceOptions& options,
                                                       const std::vector<int32_t>& ids) {
  const size_t experts = CanImplement(options).ok() ? static_cast<size_t>(options.experts) : 0;
  Array<int32_t> ids_in(ids), counts(experts * experts, kPoison);
  RETURN_IF_ERROR(ENQUEUE(CoOccurrence, options, ids_in.data(), counts.data()));
  RETURN_IF_ERROR(Finish());
  return counts.Read();
}

absl::StatusOr<ActiveSums> SampleActiveExperts(const SampledLoadOptions& options) {
  Array<unsigned long long> sums(2, kPoison);
  RETURN_IF_ERROR(ENQUEUE(SampledLoad, options, sums.data()));
  RETURN_IF_ERROR(Finish());
  const std::vector<unsigned long long> read = sums.Read();
  return ActiveSums{read[0], read[1]};
}

}  // namespace epsim::kernel_runs
