// The emulator itself: it computes as CUDA does, and it finds what would hang or race.
#include "tests/models/kernels/cuda_on_cpu.h"

#include <numeric>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace epsim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr unsigned kAll = 0xffff'ffffu;

// Sums 256 numbers with shuffles, shared memory and a barrier.
__global__ void SumKernel(const int* in, int* out) {
  int* const of_warp = SharedMemory<int>();
  int sum = in[blockIdx.x * blockDim.x + threadIdx.x];
  for (int lanes = 16; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAll, sum, lanes);
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x != 0) return;
  int all = 0;
  for (unsigned w = 0; w < blockDim.x / 32; ++w) all += of_warp[w];
  out[blockIdx.x] = all;
}

TEST(CudaOnCpu, BlocksSum) {
  std::vector<int> in(3 * 256), out(3);
  std::iota(in.begin(), in.end(), 0);
  ASSERT_TRUE(CpuStream().Launch("sum", &SumKernel, 3, 256, 8 * sizeof(int), in.data(), out.data()).ok());
  EXPECT_THAT(out, ElementsAre(255 * 128, 255 * 128 + 256 * 256, 255 * 128 + 2 * 256 * 256));
}

__global__ void WarpFunctionsKernel(unsigned* out) {
  const unsigned lane = threadIdx.x;
  out[lane] = __ballot_sync(kAll, lane % 3 == 0);
  out[32 + lane] = __match_any_sync(kAll, lane / 8);
  out[64 + lane] = __reduce_max_sync(kAll, lane * 7 % 32);
  out[96 + lane] = __shfl_up_sync(kAll, lane, 4);
  out[128 + lane] = __shfl_down_sync(kAll, lane, 4);
  out[160 + lane] = lane < 16 ? __reduce_add_sync(0xffffu, 1u) : __reduce_min_sync(0xffff'0000u, lane);
}

TEST(CudaOnCpu, WarpFunctions) {
  std::vector<unsigned> out(192);
  ASSERT_TRUE(CpuStream().Launch("warp", &WarpFunctionsKernel, 1, 32, 0, out.data()).ok());
  EXPECT_EQ(out[5], 0x4924'9249u);
  EXPECT_EQ(out[32 + 9], 0xff00u);
  EXPECT_EQ(out[64], 31u);
  EXPECT_THAT((std::vector<unsigned>{out[96], out[99], out[100], out[127]}), ElementsAre(0, 3, 0, 27));
  EXPECT_THAT((std::vector<unsigned>{out[128], out[155], out[156], out[159]}), ElementsAre(4, 31, 28, 31));
  EXPECT_THAT((std::vector<unsigned>{out[160], out[191]}), ElementsAre(16, 16));
}

// Without the barrier a thread reads what its neighbour has not written yet, in some round's order.
__global__ void NeighbourKernel(bool barrier, int* out) {
  int* const shared = SharedMemory<int>();
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  if (barrier) __syncthreads();
  out[threadIdx.x] = shared[(threadIdx.x + 1) % blockDim.x];
}

TEST(CudaOnCpu, AMissingBarrierShows) {
  std::vector<int> out(64), expected(64);
  std::iota(expected.begin(), expected.end(), 1);
  expected.back() = 0;
  ASSERT_TRUE(CpuStream().Launch("neighbour", &NeighbourKernel, 1, 64, 256, true, out.data()).ok());
  EXPECT_EQ(out, expected);
  ASSERT_TRUE(CpuStream().Launch("neighbour", &NeighbourKernel, 1, 64, 256, false, out.data()).ok());
  EXPECT_NE(out, expected);
}

std::string Error(void (*kernel)(), int threads = 32, size_t shared_bytes = 0) {
  return std::string(CpuStream().Launch("kernel", kernel, 1, threads, shared_bytes).message());
}

TEST(CudaOnCpu, AWarpFunctionNeedsTheLanesOfItsMask) {
  EXPECT_THAT(Error([] {
                if (threadIdx.x != 3) __ballot_sync(kAll, 1);
              }),
              HasSubstr("in __ballot_sync with mask ffffffff; 1 of 32 threads have ended"));
  EXPECT_THAT(Error([] { threadIdx.x == 3 ? __ballot_sync(kAll, 1) : __reduce_add_sync(kAll, 1u); }),
              HasSubstr("__ballot_sync with mask ffffffff"));
  EXPECT_THAT(Error([] { __ballot_sync(threadIdx.x == 3 ? 0xffu : kAll, 1); }), HasSubstr("with mask ff"));
  EXPECT_THAT(Error([] { __syncwarp(1); }), HasSubstr("not in its own mask 1"));
  EXPECT_THAT(Error([] {
                if (threadIdx.x < 2) __shfl_sync(3, 1, 5);
              }),
              HasSubstr("reads lane 5, not in the mask"));
}

TEST(CudaOnCpu, ABarrierNeedsAllThreads) {
  EXPECT_THAT(Error(
                  [] {
                    if (threadIdx.x < 40) __syncthreads();
                  },
                  64),
              HasSubstr("in __syncthreads; thread 1 in __syncthreads"));
}

TEST(CudaOnCpu, SharedMemoryEndsWhereItWasAskedFor) {
  EXPECT_THAT(Error([] { SharedMemory<int>()[threadIdx.x] = 0; }, 32, 31 * sizeof(int)),
              HasSubstr("byte 124 of shared"));
  EXPECT_EQ(Error([] { SharedMemory<int>()[threadIdx.x] = 0; }, 32, 32 * sizeof(int)), "");
}

}  // namespace
}  // namespace epsim
