// The clock on a GPU, real or stood in for: what it refuses and why, and times that respond as they must.
#include "models/kernels/clock/gpu_clock.h"

#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/models/kernels/kernel_works.h"
#ifdef EPSIM_GPU_ON_CPU
#include "tests/models/kernels/gpu_on_cpu.h"
#endif

namespace epsim {
namespace {

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
using ::testing::AllOf;
using ::testing::HasSubstr;

// One clock for all tests: to make one warms the GPU up.
const absl::StatusOr<std::unique_ptr<KernelClock>>& Clock() {
#ifdef EPSIM_GPU_ON_CPU
  gpu_on_cpu::TheGpu().execute = false;
#endif
  static const auto* const kClock = new absl::StatusOr<std::unique_ptr<KernelClock>>(NewGpuClock(0));
  return *kClock;
}

class GpuClockTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!Clock().ok()) GTEST_SKIP() << Clock().status();
  }
  KernelClock& clock() { return **Clock(); }
  bool HasBlockScaledFp8() { return clock().hardware().compute_capability() == 90; }
  std::string Refusal(const KernelWork& work) { return std::string(clock().CanImplement(work).message()); }

  // The median, checked for its order.
  double Median(const KernelWork& work) {
    const absl::StatusOr<KernelTime> time = clock().Time(work);
    EXPECT_TRUE(time.ok()) << time.status() << " " << work.ShortDebugString();
    if (!time.ok()) return 0;
    EXPECT_GE(time->repeats(), 5u);
    EXPECT_GT(time->lower_quartile_us(), 0);
    EXPECT_LE(time->lower_quartile_us(), time->median_us());
    EXPECT_LE(time->median_us(), time->upper_quartile_us());
    return time->median_us();
  }
};

TEST_F(GpuClockTest, KnowsItsHardware) {
  const Hardware& hardware = clock().hardware();
  RecordProperty("hardware", hardware.ShortDebugString());
  EXPECT_NE(hardware.gpu(), "");
  EXPECT_GE(hardware.compute_capability(), 80u);
  EXPECT_GE(hardware.sms(), 10u);
  EXPECT_GT(hardware.memory_bytes(), 1u << 30);
  EXPECT_GT(hardware.l2_bytes(), 1u << 20);
  EXPECT_THAT(hardware.cuda(), HasSubstr("."));
  EXPECT_THAT(hardware.cublas(), HasSubstr("."));
}

TEST_F(GpuClockTest, RefusesWithTheFigures) {
  EXPECT_THAT(Refusal(KernelWork()), HasSubstr("no work"));
  EXPECT_THAT(Refusal(Gemm(NVFP4, 128, 128, 128)), HasSubstr("NVFP4"));
  EXPECT_THAT(Refusal(Gemm(BF16, 128, 100, 128)), HasSubstr("n: 100 is no positive multiple of 8"));
  EXPECT_THAT(Refusal(ExpertMlp(MXFP8, 128, 128, {1})), HasSubstr("MXFP8"));
  EXPECT_THAT(Refusal(ExpertMlp(BF16, 128, 100, {1})), HasSubstr("inter: 100 is no positive multiple of 16"));
  EXPECT_THAT(Refusal(ExpertMlp(BF16, 128, 128, {0, 0})), HasSubstr("no tokens"));
  EXPECT_THAT(Refusal(Launch(0)), HasSubstr("kernels: 0"));
  EXPECT_THAT(Refusal(Permute(MXFP8, 16, 8, 32, 256, false)), HasSubstr("MXFP8"));
  EXPECT_THAT(Refusal(Permute(FP8, 16, 8, 32, 256, true)), HasSubstr("FP8"));
  EXPECT_THAT(Refusal(Permute(BF16, 16, 8, 4, 256, false)), HasSubstr("4 slots"));
  EXPECT_THAT(Refusal(ExpertChoice(16, 32, 4, 0, true)), HasSubstr("capacity: 0"));
  EXPECT_NE(Refusal(Router(16, 4096, 8, ModelSpec::SOFTMAX)), "");
  EXPECT_NE(Refusal(CoOccurrence(16, 1 << 20, 8)), "");
  EXPECT_NE(Refusal(SampledLoad(100, 4, 8, 9, 2)), "");
  KernelWork mixed = ExpertMlp(FP8, 128, 128, {1});
  mixed.mutable_expert_mlp()->set_activations(BF16);
  EXPECT_THAT(Refusal(mixed), AllOf(HasSubstr("weights in FP8"), HasSubstr("activations in BF16")));
  if (HasBlockScaledFp8()) {
    EXPECT_THAT(Refusal(Gemm(FP8, 24, 128, 128)), HasSubstr("m: 24 is no positive multiple of 16"));
    EXPECT_THAT(Refusal(ExpertMlp(FP8, 192, 128, {1})), HasSubstr("hidden: 192 is no positive multiple of 128"));
  } else {
    EXPECT_THAT(Refusal(Gemm(FP8, 128, 128, 128)), HasSubstr("compute capability 9.0"));
  }
}

TEST_F(GpuClockTest, SaysHowMuchMemoryIsMissing) {
  const uint64_t memory = clock().hardware().memory_bytes();
  EXPECT_THAT(Refusal(DeviceCopy(memory)),
              AllOf(HasSubstr(absl::StrCat("needs ", 2 * memory, " bytes")), HasSubstr("are free")));
  EXPECT_FALSE(clock().Time(DeviceCopy(memory)).ok());
  EXPECT_TRUE(clock().CanImplement(DeviceCopy(1 << 20)).ok()) << "a refusal leaves the clock as it was";
}

// Sixteen times the bytes, eight times the products, twice the kernels: never faster, and not by noise alone.
TEST_F(GpuClockTest, MoreWorkTakesLonger) {
  EXPECT_GT(Median(DeviceCopy(256 << 20)), 4 * Median(DeviceCopy(16 << 20)));
  EXPECT_GT(Median(HostCopy(64 << 20, true)), 4 * Median(HostCopy(4 << 20, true)));
  EXPECT_GT(Median(HostCopy(64 << 20, false)), 4 * Median(HostCopy(4 << 20, false)));
  EXPECT_GT(Median(Gemm(BF16, 4096, 4096, 4096)), 3 * Median(Gemm(BF16, 2048, 2048, 2048)));
  EXPECT_GT(Median(Launch(20)), 1.5 * Median(Launch(10)));
  EXPECT_GT(Median(Router(65536, 256, 8, ModelSpec::SOFTMAX)), 2 * Median(Router(8192, 256, 8, ModelSpec::SOFTMAX)));
  EXPECT_GT(Median(ExpertChoice(16384, 256, 8, 1.25, true)), 1.5 * Median(ExpertChoice(2048, 256, 8, 1.25, true)));
  EXPECT_GT(Median(ExpertChoice(16384, 256, 8, 1.25, false)), 1.5 * Median(ExpertChoice(2048, 256, 8, 1.25, false)));
  EXPECT_GT(Median(CoOccurrence(262144, 256, 8)), 2 * Median(CoOccurrence(8192, 256, 8)));
  EXPECT_GT(Median(SampledLoad(4'000'000, 4, 256, 8, 32)), 2 * Median(SampledLoad(200'000, 4, 256, 8, 32)));
  for (const bool back : {false, true}) {
    EXPECT_GT(Median(Permute(BF16, 4096, 8, 32, 7168, back)), 2 * Median(Permute(BF16, 512, 8, 32, 7168, back)));
  }
  EXPECT_GT(Median(Permute(FP8, 4096, 8, 32, 7168, false)), 2 * Median(Permute(FP8, 512, 8, 32, 7168, false)));
  for (const NumberType values : {BF16, FP8}) {
    if (values == FP8 && !HasBlockScaledFp8()) continue;
    const double one = Median(ExpertMlp(values, 2048, 1024, {1, 1, 1, 1}));
    EXPECT_GT(Median(ExpertMlp(values, 2048, 1024, {2048, 2048, 2048, 2048})), 2 * one);
    // Slots without tokens are not read: the weights of one slot cost less than those of 16.
    EXPECT_LT(Median(ExpertMlp(values, 2048, 1024, {0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0})),
              Median(ExpertMlp(values, 2048, 1024, std::vector<uint32_t>(16, 8))));
  }
}

// The same work twice: within a tenth of each other, and at least what the memory allows: no copy is faster than 20
// TB/s.
TEST_F(GpuClockTest, TimesAgainAsBefore) {
  const double first = Median(DeviceCopy(256 << 20)), second = Median(DeviceCopy(256 << 20));
  EXPECT_NEAR(first, second, 0.1 * first);
  EXPECT_GT(first, 2 * double{256 << 20} / 20e12 * 1e6);
}

}  // namespace
}  // namespace epsim
