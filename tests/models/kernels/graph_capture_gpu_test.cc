// The routing kernels of a layer in a CUDA graph: captured once, replayed on new scores, without the host between them.
#include <cuda_runtime_api.h>

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "models/kernels/cuda_status.h"
#include "models/kernels/expert_choice_gpu.h"
#include "models/kernels/router_gpu.h"
#include "tests/models/kernels/drawn_numbers.h"
#include "tests/models/kernels/kernel_runs.h"

namespace epsim {
namespace {

class GraphCapture : public testing::Test {
 protected:
  void SetUp() override {
    if (const std::string reason = kernel_runs::NoDevice(); !reason.empty()) GTEST_SKIP() << reason;
  }
};

void Ok(cudaError_t error) { ASSERT_EQ(CudaStatus(error, "CUDA").ToString(), "OK"); }

template <typename T>
class OnDevice {
 public:
  explicit OnDevice(size_t size) : size_(size) { Ok(cudaMalloc(&data_, size * sizeof(T) + 16)); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;
  ~OnDevice() { cudaFree(data_); }
  T* data() { return static_cast<T*>(data_); }
  void Write(const std::vector<T>& values) {
    Ok(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
    Ok(cudaDeviceSynchronize());
  }
  std::vector<T> Read() const {
    std::vector<T> values(size_);
    Ok(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  size_t size_;
  void* data_ = nullptr;
};

TEST_F(GraphCapture, ExpertChoiceAndRouter) {
  const ExpertChoiceOptions choice = {.tokens = 2048, .experts = 256, .top_k = 8, .capacity = 80};
  const RouterOptions router = {.tokens = 2048, .experts = 256, .top_k = 8};
  constexpr size_t kScores = 2048 * 256, kChosen = 2048 * 8;
  OnDevice<float> scores(kScores), weights(kChosen), router_weights(kChosen);
  OnDevice<int32_t> ids(kChosen), counts(2048), router_ids(kChosen);
  OnDevice<unsigned char> workspace(ExpertChoiceWorkspaceBytes(choice));

  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  Ok(cudaStreamCreate(&stream));
  Ok(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  EXPECT_TRUE(LaunchRouter(router, scores.data(), nullptr, router_ids.data(), router_weights.data(), stream).ok());
  EXPECT_TRUE(
      LaunchExpertChoice(choice, scores.data(), ids.data(), counts.data(), weights.data(), workspace.data(), stream)
          .ok());
  Ok(cudaStreamEndCapture(stream, &graph));
  Ok(cudaGraphInstantiate(&executable, graph, 0));
  for (const char* name : {"graph/first", "graph/second"}) {
    const std::vector<float> drawn = DrawNormal(kScores, 1, name);
    scores.Write(drawn);
    Ok(cudaGraphLaunch(executable, stream));
    Ok(cudaStreamSynchronize(stream));
    std::vector<int32_t> twin_ids(kChosen), twin_counts(2048);
    std::vector<float> twin_weights(kChosen);
    ASSERT_TRUE(ChooseByExperts(choice, drawn, absl::MakeSpan(twin_ids), absl::MakeSpan(twin_counts),
                                absl::MakeSpan(twin_weights))
                    .ok());
    EXPECT_EQ(ids.Read(), twin_ids);
    EXPECT_EQ(counts.Read(), twin_counts);
    EXPECT_EQ(weights.Read(), twin_weights);
    ASSERT_TRUE(RouteTokens(router, drawn, {}, absl::MakeSpan(twin_ids), absl::MakeSpan(twin_weights)).ok());
    EXPECT_EQ(router_ids.Read(), twin_ids);
    EXPECT_EQ(router_weights.Read(), twin_weights);
  }
  Ok(cudaGraphExecDestroy(executable));
  Ok(cudaGraphDestroy(graph));
  Ok(cudaStreamDestroy(stream));
}

}  // namespace
}  // namespace epsim
