#include <utility>
#include <vector>

#include "engine/status_macros.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/random_data.h"
#include "models/kernels/device_buffer.h"
#include "models/kernels/router_gpu.h"

namespace epsim {
namespace {

class Router : public GpuWork {
 public:
  Router(const RouterOptions& options, bool biased) : options_(options), biased_(biased) {}

  int64_t set_bytes() const override { return 4 * (Logits() + Bias()) + 8 * Chosen(); }

  absl::Status Prepare(int sets, GraphTimer& timer) override {
    for (int i = 0; i < sets; ++i) {
      Set set;
      const auto seed = static_cast<uint64_t>(2 * i);
      ASSIGN_OR_RETURN(set.logits, DeviceBuffer<float>::Allocate(Logits()));
      ASSIGN_OR_RETURN(set.bias, DeviceBuffer<float>::Allocate(Bias()));
      ASSIGN_OR_RETURN(set.ids, DeviceBuffer<int32_t>::Allocate(Chosen()));
      ASSIGN_OR_RETURN(set.weights, DeviceBuffer<float>::Allocate(Chosen()));
      RETURN_IF_ERROR(DrawFloats(set.logits.data(), Logits(), -4, 4, seed, timer.stream()));
      RETURN_IF_ERROR(DrawFloats(set.bias.data(), Bias(), -0.1f, 0.1f, seed + 1, timer.stream()));
      sets_.push_back(std::move(set));
    }
    return CudaStatus(cudaStreamSynchronize(timer.stream()), "random logits");
  }

  absl::Status Launch(int set_number, cudaStream_t stream) override {
    const Set& set = sets_[static_cast<size_t>(set_number)];
    return LaunchRouter(options_, set.logits.data(), set.bias.data(), set.ids.data(), set.weights.data(), stream);
  }

 private:
  struct Set {
    DeviceBuffer<float> logits, bias, weights;
    DeviceBuffer<int32_t> ids;
  };
  int64_t Logits() const { return int64_t{options_.tokens} * options_.experts; }
  int64_t Bias() const { return biased_ ? options_.experts : 0; }
  int64_t Chosen() const { return int64_t{options_.tokens} * options_.top_k; }

  const RouterOptions options_;
  const bool biased_;
  std::vector<Set> sets_;
};

}  // namespace

// Sigmoid scores come with a bias and groups by their best two, as DeepSeek-V3 has them; softmax with neither.
absl::StatusOr<std::unique_ptr<GpuWork>> NewRouterWork(const RouterWork& work) {
  const bool sigmoid = work.scoring() == ModelSpec::SIGMOID;
  const RouterOptions options = {.tokens = static_cast<int>(work.tokens()),
                                 .experts = static_cast<int>(work.experts()),
                                 .top_k = static_cast<int>(work.top_k()),
                                 .scoring = sigmoid ? RouterScoring::kSigmoid : RouterScoring::kSoftmax,
                                 .groups = work.groups() == 0 ? 1 : static_cast<int>(work.groups()),
                                 .top_groups = work.groups() == 0 ? 1 : static_cast<int>(work.top_groups()),
                                 .group_rank = sigmoid ? GroupRank::kBestTwo : GroupRank::kBestExpert};
  RETURN_IF_ERROR(CanImplement(options));
  return std::make_unique<Router>(options, sigmoid);
}

}  // namespace epsim
