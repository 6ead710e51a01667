#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/clock/random_ids.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/permute_gpu.h"

namespace epsim {
namespace {

// Where rows go, the same for all sets.
class Plan {
 public:
  static int64_t Bytes(const PermuteOptions& options) {
    return 4 * (2 * Pairs(options) + 2 * options.slots + 1 + options.ranks) +
           static_cast<int64_t>(RowPlanWorkspaceBytes(options));
  }

  absl::Status Allocate(const PermuteOptions& options) {
    const std::vector<int32_t> slots = DrawDistinctIds(options.tokens, options.top_k, options.slots);
    ASSIGN_OR_RETURN(slots_, DeviceBuffer<int32_t>::Allocate(Pairs(options)));
    RETURN_IF_ERROR(CopyToDevice(slots.data(), slots_));
    ASSIGN_OR_RETURN(rows_, DeviceBuffer<int32_t>::Allocate(Pairs(options)));
    ASSIGN_OR_RETURN(offsets_, DeviceBuffer<int32_t>::Allocate(options.slots + 1));
    ASSIGN_OR_RETURN(counts_, DeviceBuffer<int32_t>::Allocate(options.slots));
    ASSIGN_OR_RETURN(tokens_per_rank_, DeviceBuffer<int32_t>::Allocate(options.ranks));
    ASSIGN_OR_RETURN(workspace_, DeviceBuffer<uint8_t>::Allocate(static_cast<int64_t>(RowPlanWorkspaceBytes(options))));
    return absl::OkStatus();
  }

  absl::Status Launch(const PermuteOptions& options, cudaStream_t stream) const {
    return LaunchRowPlan(options, slots_.data(), rows_.data(), offsets_.data(), counts_.data(), tokens_per_rank_.data(),
                         workspace_.data(), stream);
  }
  const int32_t* rows() const { return rows_.data(); }

 private:
  static int64_t Pairs(const PermuteOptions& options) { return int64_t{options.tokens} * options.top_k; }

  DeviceBuffer<int32_t> slots_, rows_, offsets_, counts_, tokens_per_rank_;
  DeviceBuffer<uint8_t> workspace_;
};

// The plan, and the rows to their places.
class RowsToSlots : public GpuWork {
 public:
  RowsToSlots(const PermuteOptions& options, const RowBytes& bytes) : options_(options), bytes_(bytes) {}

  int64_t set_bytes() const override {
    return (options_.tokens + MostRows(options_)) * static_cast<int64_t>(bytes_.values + bytes_.scales);
  }
  int64_t shared_bytes() const override { return Plan::Bytes(options_); }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    RETURN_IF_ERROR(plan_.Allocate(options_));
    const auto values = static_cast<int64_t>(bytes_.values), scales = static_cast<int64_t>(bytes_.scales);
    for (int i = 0; i < sets; ++i) {
      Set set;
      ASSIGN_OR_RETURN(set.values, DeviceBuffer<uint8_t>::Allocate(options_.tokens * values));
      ASSIGN_OR_RETURN(set.scales, DeviceBuffer<uint8_t>::Allocate(options_.tokens * scales));
      ASSIGN_OR_RETURN(set.permuted_values, DeviceBuffer<uint8_t>::Allocate(MostRows(options_) * values));
      ASSIGN_OR_RETURN(set.permuted_scales, DeviceBuffer<uint8_t>::Allocate(MostRows(options_) * scales));
      RETURN_IF_ERROR(DrawFp8(set.values.data(), set.values.size(), static_cast<uint64_t>(2 * i), timer.stream()));
      RETURN_IF_ERROR(DrawFp8(set.scales.data(), set.scales.size(), static_cast<uint64_t>(2 * i + 1), timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random rows");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    RETURN_IF_ERROR(plan_.Launch(options_, stream));
    return LaunchPermute(options_, bytes_, plan_.rows(), set.values.data(), set.scales.data(),
                         set.permuted_values.data(), set.permuted_scales.data(), stream);
  }

 private:
  struct Set {
    DeviceBuffer<uint8_t> values, scales, permuted_values, permuted_scales;
  };
  const PermuteOptions options_;
  const RowBytes bytes_;
  Plan plan_;
  std::vector<Set> sets_;
};

// The weighted sums of rows, back in the order of tokens; the plan has been made.
class RowsToTokens : public GpuWork {
 public:
  RowsToTokens(const PermuteOptions& options, int hidden) : options_(options), hidden_(hidden) {}

  int64_t set_bytes() const override {
    return 2 * (MostRows(options_) + options_.tokens) * hidden_ + 4 * int64_t{options_.tokens} * options_.top_k;
  }
  int64_t shared_bytes() const override { return Plan::Bytes(options_); }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    RETURN_IF_ERROR(plan_.Allocate(options_));
    RETURN_IF_ERROR(plan_.Launch(options_, timer.stream()));
    for (int i = 0; i < sets; ++i) {
      Set set;
      const auto seed = static_cast<uint64_t>(2 * i);
      ASSIGN_OR_RETURN(set.permuted, DeviceBuffer<uint16_t>::Allocate(MostRows(options_) * hidden_));
      ASSIGN_OR_RETURN(set.weights, DeviceBuffer<float>::Allocate(int64_t{options_.tokens} * options_.top_k));
      ASSIGN_OR_RETURN(set.out, DeviceBuffer<uint16_t>::Allocate(int64_t{options_.tokens} * hidden_));
      RETURN_IF_ERROR(DrawBf16(set.permuted.data(), set.permuted.size(), -1, 1, seed, timer.stream()));
      RETURN_IF_ERROR(DrawFloats(set.weights.data(), set.weights.size(), 0.05f, 0.2f, seed + 1, timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random rows");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    return LaunchUnpermute(options_, hidden_, plan_.rows(), set.weights.data(), set.permuted.data(), set.out.data(),
                           stream);
  }

 private:
  struct Set {
    DeviceBuffer<uint16_t> permuted, out;
    DeviceBuffer<float> weights;
  };
  const PermuteOptions options_;
  const int hidden_;
  Plan plan_;
  std::vector<Set> sets_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewPermuteWork(const PermuteWork& work) {
  const PermuteOptions options = {.tokens = static_cast<int>(work.tokens()),
                                  .top_k = static_cast<int>(work.top_k()),
                                  .slots = static_cast<int>(work.slots())};
  RETURN_IF_ERROR(CanImplement(options));
  if (options.tokens < 1) return absl::InvalidArgumentError("tokens: there are none");
  if (options.top_k > options.slots) {
    return absl::InvalidArgumentError(
        absl::StrCat("top_k: a token has no ", options.top_k, " distinct ones of ", options.slots, " slots"));
  }
  const bool fp8 = work.values() == FP8;
  if (!fp8 && work.values() != BF16 && work.values() != NUMBER_TYPE_DEFAULT) {
    return absl::UnimplementedError(
        absl::StrCat("rows in ", NumberType_Name(work.values()), ": there are kernels for BF16 and FP8"));
  }
  if (work.weighted_return()) {
    if (fp8) return absl::UnimplementedError("weighted_return of rows in FP8: experts give BF16");
    RETURN_IF_ERROR(CheckHidden(static_cast<int>(work.hidden())));
    return std::make_unique<RowsToTokens>(options, static_cast<int>(work.hidden()));
  }
  if (fp8 && work.hidden() % 128 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("hidden: ", work.hidden(), " is no multiple of 128, the block of scales"));
  }
  const RowBytes bytes = {.values = size_t{work.hidden()} * (fp8 ? 1 : 2),
                          .scales = fp8 ? size_t{work.hidden()} / 128 * 4 : 0};
  RETURN_IF_ERROR(CheckRowBytes(bytes));
  return std::make_unique<RowsToSlots>(options, bytes);
}

}  // namespace epsim
