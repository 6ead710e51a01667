// SwiGLU of the rows of many slots at once, and their quantisation to fp8.  Reads a row once and writes it once.
#pragma once

#include <cstdint>

#include "absl/status/status.h"
#include "models/kernels/device.cuh"
#include "models/kernels/fp8.h"
#include "models/kernels/swiglu.h"
#include "models/kernels/swiglu_gpu.h"

#if defined(__CUDACC__)
#include <cuda_fp8.h>
#endif

namespace epsim {

inline constexpr int kSwigluThreads = 256;
inline constexpr int kSwigluLanes =
    16;  // Of the threads that have a block of 128 values: eight each, 16 bytes of bf16.
inline constexpr int kSwigluBlock = 128;

__device__ __forceinline__ uint32_t Fp8OnDevice(float value) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 890  // One instruction.
  return __nv_cvt_float_to_fp8(value, __NV_SATFINITE, __NV_E4M3);
#else
  return Fp8Of(value);
#endif
}

template <bool kToFp8>
__global__ void __launch_bounds__(kSwigluThreads)
    SwigluKernel(const uint16_t* __restrict__ gate_up, int64_t rows, int64_t inter,
                 const ScalePlace* __restrict__ places, void* __restrict__ out, float* __restrict__ scales) {
  // Fewer than 2^32, as EnqueueSwiglu sees to: a division of 64 bits takes longer than the rest.
  const uint32_t blocks = static_cast<uint32_t>((inter + kSwigluBlock - 1) / kSwigluBlock);
  const int lane = static_cast<int>(threadIdx.x) % kSwigluLanes;
  const uint32_t unit = blockIdx.x * (kSwigluThreads / kSwigluLanes) + threadIdx.x / kSwigluLanes;
  const int64_t row = unit / blocks, block = unit % blocks;
  const int64_t first = block * kSwigluBlock + lane * 8;
  const bool mine = row < rows && first < inter;  // The last block of a row may be shorter.
  float values[8] = {};
  if (mine) {
    const uint16_t* gate = gate_up + row * 2 * inter + first;
    const uint4 g = *reinterpret_cast<const uint4*>(gate);
    const uint4 u = *reinterpret_cast<const uint4*>(gate + inter);
    const uint32_t gates[4] = {g.x, g.y, g.z, g.w}, ups[4] = {u.x, u.y, u.z, u.w};
    for (int i = 0; i < 4; ++i) {
      values[2 * i] = Swiglu(FloatOf(gates[i] << 16), FloatOf(ups[i] << 16));
      values[2 * i + 1] = Swiglu(FloatOf(gates[i] & 0xffff0000u), FloatOf(ups[i] & 0xffff0000u));
    }
  }
  if constexpr (kToFp8) {
    float largest = 0;
    for (int i = 0; i < 8; ++i) {
      const float magnitude = values[i] < 0 ? -values[i] : values[i];
      largest = magnitude > largest ? magnitude : largest;
    }
    for (int step = kSwigluLanes / 2; step > 0; step /= 2) {
      const float other = __shfl_xor_sync(kAllLanes, largest, step);
      largest = other > largest ? other : largest;
    }
    if (!mine) return;
    const Fp8Scale scale = ScaleToFp8(largest);
    uint32_t words[2] = {};
    for (int i = 0; i < 8; ++i) words[i / 4] |= Fp8OnDevice(Times(values[i], scale.inverse)) << (8 * (i % 4));
    *reinterpret_cast<uint2*>(static_cast<uint8_t*>(out) + row * inter + first) = uint2{words[0], words[1]};
    if (lane == 0) scales[places[row].first + block * places[row].stride] = scale.scale;
  } else {
    if (!mine) return;
    alignas(16) uint32_t words[4];
    for (int i = 0; i < 4; ++i) {
      words[i] = static_cast<uint32_t>(Bf16Of(values[2 * i])) | static_cast<uint32_t>(Bf16Of(values[2 * i + 1])) << 16;
    }
    // nvcc would make four accesses of an assignment.
    __stcs(reinterpret_cast<uint4*>(static_cast<uint16_t*>(out) + row * inter + first),
           *reinterpret_cast<const uint4*>(words));
  }
}

// As SwigluOnGpu; `stream` is a CudaStream, or the emulator's.
template <typename Stream>
absl::Status EnqueueSwiglu(const Stream& stream, const SwigluRows& rows) {
  const int64_t units = rows.rows * DivideUp(rows.inter, kSwigluBlock);
  if (units >= int64_t{1} << 31) return absl::InvalidArgumentError("SwiGLU: too many rows");
  const auto kernel = rows.places == nullptr ? SwigluKernel<false> : SwigluKernel<true>;
  return stream.Launch("SwiGLU", kernel, DivideUp(units, kSwigluThreads / kSwigluLanes), kSwigluThreads, 0,
                       rows.gate_up, rows.rows, rows.inter, rows.places, rows.out, rows.scales);
}

}  // namespace epsim
