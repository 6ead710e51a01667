// What the kernels of this folder ask of the machine that executes them, beyond CUDA's language: a GPU, or the emulator
// of the tests (tests/models/kernels/cuda_on_cpu.h), which compiles the same kernels for the CPU.
//
// Kernels keep to what the emulator knows: one-dimensional grids and blocks, shared memory through SharedMemory(), warp
// functions with an explicit mask, no waiting between blocks, no inline assembly outside this file.
#pragma once

#include <cstddef>
#include <cstdint>

#ifdef __CUDACC__

namespace epsim {

// The block's shared memory, of which the launch says the size; the same at each call.
template <typename T>
__device__ __forceinline__ T* SharedMemory() {
  extern __shared__ __align__(16) unsigned char shared_memory[];
  return reinterpret_cast<T*>(shared_memory);
}

}  // namespace epsim

#elif !defined(EPSIM_CUDA_ON_CPU)
#error "kernels are compiled by nvcc, or in a test that has included cuda_on_cpu.h"
#endif

namespace epsim {

inline constexpr int kWarp = 32;
inline constexpr unsigned kAllLanes = 0xffff'ffffu;

constexpr int64_t DivideUp(int64_t a, int64_t b) { return (a + b - 1) / b; }

__device__ __forceinline__ int LaneOfThread() { return static_cast<int>(threadIdx.x) % kWarp; }
__device__ __forceinline__ int WarpOfThread() { return static_cast<int>(threadIdx.x) / kWarp; }

}  // namespace epsim
