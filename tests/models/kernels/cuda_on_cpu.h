// CUDA's language for the CPU, as much of it as the kernels in models/kernels use: it lets a test compile a .cuh file
// with the host's compiler and execute it where there is no GPU.  To be included before the .cuh file.
//
// Each thread of a block is a fiber that runs until it waits for others: at a barrier, or in a warp function for the
// lanes of its mask.  Whose turn it is changes from round to round, so that a missing barrier is likely to show.  The
// blocks of a grid run one after another, in an order drawn anew for each launch.
//
// An error (absl::InternalError of Launch, with the place) is:
// - a warp function that lanes of its mask never reach, or that they enter with other masks or as another function;
// - a lane that reads from a lane outside the mask, or is not in its own mask;
// - a barrier that a thread of the block never reaches;
// - a write behind the shared memory that was asked for.
// Shared memory is filled with a pattern before each block.  What this cannot find: wrong orders of memory accesses
// between threads that would only show on hardware, out-of-bounds accesses to global memory (the address sanitizer of
// the `dev` preset does), and time.
#pragma once

#define EPSIM_CUDA_ON_CPU

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __restrict__ __restrict

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

// Of the fiber that is running.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace epsim::cuda_on_cpu {

struct Grid {
  int64_t blocks = 0;
  int threads = 0;
  size_t shared_bytes = 0;
};

// Executes `kernel` once for each thread of the grid.
absl::Status Run(const Grid& grid, const std::function<void()>& kernel);

// What a running fiber may ask for.
void* SharedMemoryOfBlock();
// Waits for all threads of the block; the sum of their `value`.
int Barrier(const char* function, int value);
// Waits for the lanes of `mask`, all of which must call the same `function`; what each of them brought.  [32]
const uint64_t* Exchange(const char* function, unsigned mask, uint64_t value);
// Ends the launch with an error.
[[noreturn]] void Fail(const std::string& message);
int Lane();

template <typename T>
uint64_t Pack(T value) {
  static_assert(sizeof(T) <= sizeof(uint64_t) && std::is_trivially_copyable_v<T>);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  return bits;
}
template <typename T>
T Unpack(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

template <typename T>
T FromLane(const char* function, unsigned mask, T value, int lane) {
  const uint64_t* const all = Exchange(function, mask, Pack(value));
  if ((mask >> lane & 1) == 0)
    Fail(std::string(function) + ": reads lane " + std::to_string(lane) + ", not in the mask");
  return Unpack<T>(all[lane]);
}

template <typename T, typename Operation>
T Reduce(const char* function, unsigned mask, T value, Operation operation) {
  const uint64_t* const all = Exchange(function, mask, Pack(value));
  T result = Unpack<T>(all[std::countr_zero(mask)]);
  for (unsigned left = mask & (mask - 1); left != 0; left &= left - 1) {
    result = operation(result, Unpack<T>(all[std::countr_zero(left)]));
  }
  return result;
}

}  // namespace epsim::cuda_on_cpu

namespace epsim {

template <typename T>
T* SharedMemory() {
  return static_cast<T*>(cuda_on_cpu::SharedMemoryOfBlock());
}

// Launches as CudaStream does (models/kernels/cuda_stream.h).
class CpuStream {
 public:
  template <typename... Parameters, typename... Arguments>
  absl::Status Launch(std::string_view what, void (*kernel)(Parameters...), int64_t blocks, int threads,
                      size_t shared_bytes, Arguments... arguments) const {
    const absl::Status status = cuda_on_cpu::Run({.blocks = blocks, .threads = threads, .shared_bytes = shared_bytes},
                                                 [&] { kernel(static_cast<Parameters>(arguments)...); });
    return status.ok() ? status : absl::InternalError(std::string(what) + ": " + std::string(status.message()));
  }
  absl::Status Fill(std::string_view /*what*/, void* data, int value, size_t bytes) const {
    if (bytes > 0) std::memset(data, value, bytes);
    return absl::OkStatus();
  }
};

}  // namespace epsim

inline void __syncthreads() { epsim::cuda_on_cpu::Barrier("__syncthreads", 0); }
inline int __syncthreads_count(int predicate) {
  return epsim::cuda_on_cpu::Barrier("__syncthreads_count", predicate != 0);
}
inline int __syncthreads_or(int predicate) {
  return epsim::cuda_on_cpu::Barrier("__syncthreads_or", predicate != 0) != 0;
}
inline void __syncwarp(unsigned mask = 0xffff'ffffu) { epsim::cuda_on_cpu::Exchange("__syncwarp", mask, 0); }

template <typename T>
T __shfl_sync(unsigned mask, T value, int lane) {
  return epsim::cuda_on_cpu::FromLane("__shfl_sync", mask, value, lane & 31);
}
template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int bits) {
  return epsim::cuda_on_cpu::FromLane("__shfl_xor_sync", mask, value, epsim::cuda_on_cpu::Lane() ^ bits);
}
template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta) {
  const int lane = epsim::cuda_on_cpu::Lane(), from = lane - static_cast<int>(delta);
  return epsim::cuda_on_cpu::FromLane("__shfl_up_sync", mask, value, from < 0 ? lane : from);
}
template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta) {
  const int lane = epsim::cuda_on_cpu::Lane(), from = lane + static_cast<int>(delta);
  return epsim::cuda_on_cpu::FromLane("__shfl_down_sync", mask, value, from > 31 ? lane : from);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* const all = epsim::cuda_on_cpu::Exchange("__ballot_sync", mask, predicate != 0);
  unsigned result = 0;
  for (int lane = 0; lane < 32; ++lane) result |= (mask >> lane & 1) != 0 && all[lane] != 0 ? 1u << lane : 0u;
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) == mask; }
template <typename T>
unsigned __match_any_sync(unsigned mask, T value) {
  const uint64_t own = epsim::cuda_on_cpu::Pack(value);
  const uint64_t* const all = epsim::cuda_on_cpu::Exchange("__match_any_sync", mask, own);
  unsigned result = 0;
  for (int lane = 0; lane < 32; ++lane) result |= (mask >> lane & 1) != 0 && all[lane] == own ? 1u << lane : 0u;
  return result;
}
template <typename T>
T __reduce_add_sync(unsigned mask, T value) {
  return epsim::cuda_on_cpu::Reduce("__reduce_add_sync", mask, value, [](T a, T b) { return static_cast<T>(a + b); });
}
template <typename T>
T __reduce_max_sync(unsigned mask, T value) {
  return epsim::cuda_on_cpu::Reduce("__reduce_max_sync", mask, value, [](T a, T b) { return a > b ? a : b; });
}
template <typename T>
T __reduce_min_sync(unsigned mask, T value) {
  return epsim::cuda_on_cpu::Reduce("__reduce_min_sync", mask, value, [](T a, T b) { return a < b ? a : b; });
}
template <typename T>
T __reduce_or_sync(unsigned mask, T value) {
  return epsim::cuda_on_cpu::Reduce("__reduce_or_sync", mask, value, [](T a, T b) { return static_cast<T>(a | b); });
}

template <typename T>
T atomicAdd(T* address, std::type_identity_t<T> value) {
  const T before = *address;
  *address = static_cast<T>(before + value);
  return before;
}
template <typename T>
T atomicOr(T* address, std::type_identity_t<T> value) {
  const T before = *address;
  *address = before | value;
  return before;
}
template <typename T>
T atomicMax(T* address, std::type_identity_t<T> value) {
  const T before = *address;
  if (value > before) *address = value;
  return before;
}

template <typename T>
T __ldg(const T* address) {
  return *address;
}
template <typename T>
T __ldcs(const T* address) {
  return *address;
}
template <typename T>
void __stcs(T* address, T value) {
  *address = value;
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __ffs(unsigned x) { return x == 0 ? 0 : std::countr_zero(x) + 1; }
inline int __clz(unsigned x) { return std::countl_zero(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned>(uint64_t{a} * b >> 32); }
