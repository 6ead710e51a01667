// What the host's part of the GPU code does when calls fail, and that it gives everything back.
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/clock/gpu_clock.h"
#include "models/kernels/clock/gpu_device.h"
#include "models/kernels/clock/gpu_work.h"
#include "models/kernels/clock/graph_timer.h"
#include "models/kernels/clock/kernel_figures.h"
#include "models/kernels/device_buffer.h"
#include "tests/models/kernels/gpu_on_cpu.h"
#include "tests/models/kernels/kernel_works.h"

namespace epsim {
namespace {

using gpu_on_cpu::FailNext;
using gpu_on_cpu::Leaks;
using gpu_on_cpu::Settings;
using gpu_on_cpu::TheGpu;
using kernel_works::CoOccurrence;
using kernel_works::DeviceCopy;
using kernel_works::ExpertChoice;
using kernel_works::ExpertMlp;
using kernel_works::Gemm;
using kernel_works::HostCopy;
using kernel_works::Launch;
using kernel_works::Permute;
using kernel_works::Router;
using kernel_works::SampledLoad;
using ::testing::HasSubstr;

class GpuHostCode : public testing::Test {
 protected:
  void SetUp() override {
    before_ = TheGpu();
    leaks_ = Leaks();
    TheGpu().execute = false;
  }
  void TearDown() override {
    TheGpu() = before_;
    EXPECT_EQ(Leaks(), leaks_);
  }
  Settings before_;
  std::string leaks_;
};

TEST_F(GpuHostCode, GivesEverythingBack) {
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  std::string alive;  // After the first round: the clock keeps its events.
  for (const int round : {0, 1}) {
    for (const KernelWork& work :
         {Gemm(BF16, 512, 512, 512), Gemm(FP8, 512, 512, 512), DeviceCopy(1 << 20), HostCopy(1 << 20, true),
          ExpertMlp(FP8, 512, 256, {3, 0, 40, 1}), ExpertMlp(BF16, 512, 256, {3, 0, 40, 1}), Launch(3)}) {
      EXPECT_TRUE((*clock)->CanImplement(work).ok());
      EXPECT_TRUE((*clock)->Time(work).ok()) << work.ShortDebugString();
    }
    if (round == 0) alive = Leaks();
    EXPECT_EQ(Leaks(), alive);
  }
}

// Small ones, carried out: what kernels are given has the shapes that their twins check.
TEST_F(GpuHostCode, EveryKindOfWorkLaunches) {
  TheGpu().execute = true;
  auto gpu = GpuDevice::Open(0);
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  auto timer = GraphTimer::Create();
  ASSERT_TRUE(timer.ok());
  const std::vector<KernelWork> works = {Router(20, 64, 4, ModelSpec::SOFTMAX),
                                         Router(20, 64, 4, ModelSpec::SIGMOID),
                                         ExpertChoice(20, 32, 4, 1.25, true),
                                         ExpertChoice(20, 32, 4, 1.25, false),
                                         Permute(BF16, 20, 4, 16, 256, false),
                                         Permute(FP8, 20, 4, 16, 256, false),
                                         Permute(BF16, 20, 4, 16, 256, true),
                                         CoOccurrence(20, 32, 4),
                                         SampledLoad(100, 4, 32, 4, 8),
                                         Gemm(BF16, 32, 64, 48),
                                         Gemm(FP8, 32, 128, 256),
                                         ExpertMlp(BF16, 64, 32, {1, 0, 5}),
                                         ExpertMlp(FP8, 128, 256, {1, 0, 5}),
                                         DeviceCopy(4096),
                                         HostCopy(4096, true),
                                         HostCopy(4096, false),
                                         Launch(3)};
  for (const KernelWork& work : works) {
    auto kernels = NewGpuWork(**gpu, work);
    ASSERT_TRUE(kernels.ok()) << kernels.status() << work.ShortDebugString();
    const absl::Status prepared = (*kernels)->Prepare(2, *timer);
    ASSERT_TRUE(prepared.ok()) << prepared << work.ShortDebugString();
    for (int set : {0, 1}) {
      const absl::Status launched = (*kernels)->Launch(set, timer->stream());
      EXPECT_TRUE(launched.ok()) << launched << work.ShortDebugString();
    }
  }
}

TEST_F(GpuHostCode, TellsWhatFailedAndGoesOn) {
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  for (const char* call : {"cudaMalloc", "cudaMemcpy", "cudaStreamSynchronize"}) {
    FailNext(call);
    const auto time = (*clock)->Time(ExpertMlp(FP8, 512, 256, {3, 0, 40, 1}));
    EXPECT_FALSE(time.ok()) << call;
    EXPECT_NE(time.status().message(), "");
    EXPECT_TRUE((*clock)->Time(ExpertMlp(FP8, 512, 256, {3, 0, 40, 1})).ok()) << "after " << call;
  }
}

// Which products cuBLAS has is known only when it is asked.
TEST_F(GpuHostCode, AProductThatCublasLacksIsUnimplemented) {
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  for (const char* call : {"cublasLtMatmulAlgoGetHeuristic", "finding an algorithm"}) {
    FailNext(call);
    const absl::Status status = (*clock)->Time(Gemm(FP8, 512, 256, 128)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << call << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("has no algorithm for a FP8 product of 512 x 256 x 128"));
    EXPECT_TRUE((*clock)->Time(Gemm(FP8, 512, 256, 128)).ok());
  }
}

// cudaMemcpy alone may return before the bytes are there.
TEST_F(GpuHostCode, ACopyToTheGpuIsWaitedFor) {
  const auto buffer = DeviceBuffer<int32_t>::Allocate(3);
  ASSERT_TRUE(buffer.ok());
  const std::vector<int32_t> values = {1, 2, 3};
  FailNext("cudaStreamSynchronize");
  EXPECT_FALSE(CopyToDevice(values.data(), *buffer).ok());
  EXPECT_TRUE(CopyToDevice(values.data(), *buffer).ok());
}

TEST_F(GpuHostCode, NamesTheReasonWhyThereIsNoClock) {
  const auto problem = [](int device) { return std::string(NewGpuClock(device).status().message()); };
  TheGpu().driver = 0;
  EXPECT_THAT(problem(0), HasSubstr("there is no GPU: this machine has no NVIDIA driver"));
  TheGpu().driver = 12040;
  EXPECT_THAT(problem(0), HasSubstr("too old: it supports CUDA 12.4"));
  TheGpu().driver = 13000;
  TheGpu().devices = 0;
  EXPECT_THAT(problem(0), HasSubstr("the NVIDIA driver finds none"));
  TheGpu().devices = 2;
  EXPECT_THAT(problem(2), HasSubstr("there is no GPU 2: this machine has 2"));
  TheGpu().compute_capability = 75;
  EXPECT_THAT(problem(0), HasSubstr("has compute capability 7.5"));
}

TEST_F(GpuHostCode, FitsItsBuffersIntoWhatIsFree) {
  TheGpu().memory_bytes = size_t{600} << 20;
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  // Eight matrices of 2 x 4096 x 4096 and their working memory, 256 MiB, do not go into 600 MiB.
  const KernelWork large = ExpertMlp(BF16, 4096, 2048, {1, 1, 1, 1, 1, 1, 1, 1});
  EXPECT_THAT(std::string((*clock)->CanImplement(large).message()), HasSubstr("does not fit: needs "));
  EXPECT_EQ((*clock)->Time(large).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE((*clock)->Time(DeviceCopy(size_t{200} << 20)).ok());
}

// The stand-in's own rates come back: a copy of 64 MiB moves twice that at 4 TB/s in a microsecond more, a product of
// 4096^3 takes 171.8 us at 800 TFLOP/s and two more, 10 kernels take 1.5 us each.
TEST_F(GpuHostCode, TimesWhatIsStated) {
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  EXPECT_NEAR((*clock)->Time(DeviceCopy(64 << 20))->median_us(), 2 * 67108864 / 4e6 + 1, 1e-2);
  EXPECT_NEAR((*clock)->Time(Gemm(BF16, 4096, 4096, 4096))->median_us(), 2 * 68719476736 / 800e6 + 2, 1e-1);
  EXPECT_NEAR((*clock)->Time(Launch(10))->median_us(), 15, 1e-3);
}

TEST_F(GpuHostCode, FiguresAreMadeOfThem) {
  const auto clock = NewGpuClock(0);
  ASSERT_TRUE(clock.ok()) << clock.status();
  const auto figures = MeasureKernels(**clock);
  ASSERT_TRUE(figures.ok()) << figures.status();
  EXPECT_NEAR(figures->ceilings.copy_bytes_per_us, 4e6, 2e4);
  EXPECT_NEAR(figures->ceilings.fp8_flops_per_us, 800e6, 2e6);
  for (const KernelFigure& kernel : figures->kernels) EXPECT_FALSE(kernel.failed) << kernel.name << kernel.problem;
}

}  // namespace
}  // namespace epsim
