// The greatest of a row of up to 512 floats, by a warp that holds the row in registers: lane l has the places
//   128 c + 4 l + i,  c < chunks, i < 4,
// so that it reads 16 bytes at a time and the warp 512 in a row.
#pragma once

#include "models/kernels/device.cuh"
#include "models/kernels/exact_float.h"

namespace epsim {

inline constexpr int kRowChunk = 4 * kWarp;
inline constexpr int kMostRowChunks = 4;

__device__ __forceinline__ int PlaceOfValue(int lane, int value) {
  return value / 4 * kRowChunk + 4 * lane + value % 4;
}

// value[v]: row[PlaceOfValue(lane, v)], `behind` where that is not below n.
template <int kChunks>
__device__ __forceinline__ void LoadRow(const float* __restrict__ row, int n, float behind, float* value) {
  const int lane = LaneOfThread();
  if (n % 4 == 0) {  // Then every row begins at a multiple of 16 bytes.
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int first = PlaceOfValue(lane, 4 * c);
      float4 four{behind, behind, behind, behind};
      if (first < n) four = __ldg(reinterpret_cast<const float4*>(row + first));
      value[4 * c] = four.x, value[4 * c + 1] = four.y, value[4 * c + 2] = four.z, value[4 * c + 3] = four.w;
    }
  } else {
#pragma unroll
    for (int v = 0; v < 4 * kChunks; ++v) {
      const int place = PlaceOfValue(lane, v);
      value[v] = place < n ? __ldg(row + place) : behind;
    }
  }
}

// A place of the row and its key (OrderedBits); key 0: none.
struct WarpPick {
  int place = -1;
  uint32_t key = 0;
};

// The `count` <= 32 greatest keys, of equal ones the lower place first: lane i returns the i-th, lanes from `count` on
// none.  Keys of 0 are out of the question; the picked ones become 0.
template <int kChunks>
__device__ __forceinline__ WarpPick PickGreatest(uint32_t* key, int count) {
  const int lane = LaneOfThread();
  WarpPick own;
  for (int rank = 0; rank < count; ++rank) {
    uint32_t local = key[0];
    int local_value = 0;
#pragma unroll
    for (int v = 1; v < 4 * kChunks; ++v) {
      if (key[v] > local) local = key[v], local_value = v;  // Places rise with v: of equal keys the lower stays.
    }
    const uint32_t best = __reduce_max_sync(kAllLanes, local);
    if (best == 0) break;
    const unsigned local_place = local == best ? static_cast<unsigned>(PlaceOfValue(lane, local_value)) : ~0u;
    const int place = static_cast<int>(__reduce_min_sync(kAllLanes, local_place));
#pragma unroll
    for (int v = 0; v < 4 * kChunks; ++v) {
      if (PlaceOfValue(lane, v) == place) key[v] = 0;
    }
    if (lane == rank) own = {place, best};
  }
  return own;
}

}  // namespace epsim
