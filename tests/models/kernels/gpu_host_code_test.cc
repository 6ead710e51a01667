// What the host's part of the GPU code does when calls fail, and that it gives everything back.
#include <memory>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "models/kernels/gpu_clock.h"
#include "models/kernels/kernel_figures.h"
#include "tests/models/kernels/gpu_on_cpu.h"
#include "tests/models/kernels/kernel_works.h"

namespace epsim {
namespace {

using gpu_on_cpu::FailNext;
using gpu_on_cpu::Leaks;
using gpu_on_cpu::Settings;
using gpu_on_cpu::TheGpu;
using kernel_works::DeviceCopy;
using kernel_works::ExpertMlp;
using kernel_works::Gemm;
using kernel_works::HostCopy;
using kernel_works::Launch;
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
