#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/expert_choice_gpu.h"
#include "policies/routing/expert_choice.h"

namespace epsim {
namespace {

class ExpertChoiceKernels : public GpuWork {
 public:
  ExpertChoiceKernels(const ExpertChoiceOptions& options, bool fused) : options_(options), fused_(fused) {}

  int64_t set_bytes() const override { return 4 * (Scores() + options_.tokens) + 8 * Chosen(); }
  int64_t shared_bytes() const override {
    return static_cast<int64_t>(fused_ ? ExpertChoiceWorkspaceBytes(options_)
                                       : PlainExpertChoiceWorkspaceBytes(options_));
  }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    ASSIGN_OR_RETURN(workspace_, DeviceBuffer<uint8_t>::Allocate(shared_bytes()));
    for (int i = 0; i < sets; ++i) {
      Set set;
      ASSIGN_OR_RETURN(set.scores, DeviceBuffer<float>::Allocate(Scores()));
      ASSIGN_OR_RETURN(set.ids, DeviceBuffer<int32_t>::Allocate(Chosen()));
      ASSIGN_OR_RETURN(set.counts, DeviceBuffer<int32_t>::Allocate(options_.tokens));
      ASSIGN_OR_RETURN(set.weights, DeviceBuffer<float>::Allocate(Chosen()));
      RETURN_IF_ERROR(DrawFloats(set.scores.data(), Scores(), 0, 1, static_cast<uint64_t>(i), timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random scores");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    const auto launch = fused_ ? LaunchExpertChoice : LaunchPlainExpertChoice;
    return launch(options_, set.scores.data(), set.ids.data(), set.counts.data(), set.weights.data(), workspace_.data(),
                  stream);
  }

 private:
  struct Set {
    DeviceBuffer<float> scores, weights;
    DeviceBuffer<int32_t> ids, counts;
  };
  int64_t Scores() const { return int64_t{options_.tokens} * options_.experts; }
  int64_t Chosen() const { return int64_t{options_.tokens} * options_.top_k; }

  const ExpertChoiceOptions options_;
  const bool fused_;
  DeviceBuffer<uint8_t> workspace_;
  std::vector<Set> sets_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GpuWork>> NewExpertChoiceWork(const ExpertChoiceWork& work) {
  ExpertChoiceOptions options = {.tokens = static_cast<int>(work.tokens()),
                                 .experts = static_cast<int>(work.experts()),
                                 .top_k = static_cast<int>(work.top_k()),
                                 .capacity = 1,
                                 .fall_back = true};
  RETURN_IF_ERROR(CanImplement(options));
  if (!(work.capacity() > 0 && work.capacity() <= work.experts())) {
    return absl::InvalidArgumentError(
        absl::StrCat("capacity: ", work.capacity(), " is not above 0 and at most the ", work.experts(), " experts"));
  }
  options.capacity = ExpertCapacity(work.capacity(), options.tokens, options.top_k, options.experts);
  RETURN_IF_ERROR(CanImplement(options));
  return std::make_unique<ExpertChoiceKernels>(options, work.fused());
}

}  // namespace epsim
