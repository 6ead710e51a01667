#include "models/calibration/work_demand.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

// 1 ps a byte, 1 / 1024 ps an operation in bf16, half of it in fp8.
GpuPeaks RoundPeaks() {
  GpuSpec gpu;
  gpu.set_name("Round");
  gpu.set_memory_bandwidth("1 TB/s");
  gpu.set_bf16("1024 TFLOP/s");
  gpu.set_fp8("2048 TFLOP/s");
  return *MakeGpuPeaks(gpu);
}

TEST(GpuPeaks, AreThoseOfTheGpu) {
  EXPECT_DOUBLE_EQ(RoundPeaks().ps_per_byte, 1);
  EXPECT_DOUBLE_EQ(RoundPeaks().PerFlop(BF16), 1.0 / 1024);
  EXPECT_DOUBLE_EQ(RoundPeaks().PerFlop(FP8), 1.0 / 2048);
  EXPECT_DOUBLE_EQ(RoundPeaks().PerFlop(NVFP4), 1.0 / 1024);  // It has no units for it.
  EXPECT_THAT(std::string(MakeGpuPeaks(GpuSpec()).status().message()), testing::HasSubstr("memory_bandwidth"));
}

// Weights 2 * 32 * 64 = 4096 B; a token 2 * (64 + 32) = 192 B and 4096 flop, 4 ps.
TEST(WorkDemand, OfAGemm) {
  const TokenDemand demand = GemmDemand(RoundPeaks(), 32, 64, BF16);
  EXPECT_DOUBLE_EQ(demand.Picoseconds(1), 4096 + 192);
  EXPECT_DOUBLE_EQ(demand.compute, 4);
}

TEST(WorkDemand, OfKernelsThatStream) {
  EXPECT_DOUBLE_EQ(RouterDemand(RoundPeaks(), 256, 8).Picoseconds(10), 10 * (4 * 256 + 8 * 8));
  EXPECT_DOUBLE_EQ(PermuteDemand(RoundPeaks(), 3, 128, BF16).Picoseconds(10), 10 * 4 * 256);
  EXPECT_DOUBLE_EQ(PermuteDemand(RoundPeaks(), 1, 128, FP8).Picoseconds(10), 10 * 2 * (128 + 4));
  EXPECT_DOUBLE_EQ(CopyDemand(RoundPeaks()).Picoseconds(1000), 2000);
}

// H = 64, I = 32.  2 slots, 3 pairs, 2048 rows: gate and up compute, 2048 * 4 * 64 * 32 / 1024 = 16384 ps against
// 2 * 8192 + 3 * (128 + 128) B = 17152 B, so the bytes; SwiGLU 3 * (128 + 64) = 576; down 2048 * 2 * 64 * 32 / 1024 =
// 8192 against 2 * 4096 + 3 * (64 + 128) = 8768.
TEST(WorkDemand, OfExperts) {
  const ExpertDemand demand(RoundPeaks(), 64, 32, BF16, BF16);
  EXPECT_DOUBLE_EQ(demand.Picoseconds(2, 3, 2048), 17152 + 576 + 8768);
  EXPECT_DOUBLE_EQ(demand.Picoseconds(2, 3, 8192), 4 * 16384 + 576 + 4 * 8192);
}

}  // namespace
}  // namespace epsim
