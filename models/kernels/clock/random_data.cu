#include <algorithm>

#include "models/kernels/clock/random_data.h"
#include "models/kernels/cuda_stream.h"
#include "models/kernels/device.cuh"
#include "models/kernels/fp8.h"

namespace epsim {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = 16384;

// SplitMix64 (Steele, Lea, Flood 2014) at position `index` of the sequence that begins at `seed`; 24 bits as [0, 1).
__device__ float Unit(uint64_t seed, int64_t index) {
  uint64_t z = seed + 0x9e3779b97f4a7c15u * (static_cast<uint64_t>(index) + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return static_cast<float>((z ^ (z >> 31)) >> 40) * 0x1p-24f;
}

struct AsFloat {
  __device__ static float Of(float value) { return value; }
};
struct AsBf16 {
  __device__ static uint16_t Of(float value) { return Bf16Of(value); }
};
struct AsFp8 {
  __device__ static uint8_t Of(float value) { return Fp8Of(value); }
};

template <typename As, typename T>
__global__ void DrawKernel(T* values, int64_t count, float low, float high, uint64_t seed) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < count; i += step) {
    values[i] = As::Of(low + (high - low) * Unit(seed, i));
  }
}

template <typename As, typename T>
absl::Status Draw(T* values, int64_t count, float low, float high, uint64_t seed, cudaStream_t stream) {
  return CudaStream(stream).Launch("random numbers", DrawKernel<As, T>,
                                   std::min(DivideUp(count, kThreads), kMostBlocks), kThreads, 0, values, count, low,
                                   high, seed);
}

}  // namespace

absl::Status DrawFloats(float* values, int64_t count, float low, float high, uint64_t seed, cudaStream_t stream) {
  return Draw<AsFloat>(values, count, low, high, seed, stream);
}
absl::Status DrawBf16(uint16_t* values, int64_t count, float low, float high, uint64_t seed, cudaStream_t stream) {
  return Draw<AsBf16>(values, count, low, high, seed, stream);
}
absl::Status DrawFp8(uint8_t* values, int64_t count, uint64_t seed, cudaStream_t stream) {
  return Draw<AsFp8>(values, count, -kLargestFp8, kLargestFp8, seed, stream);
}

}  // namespace epsim
