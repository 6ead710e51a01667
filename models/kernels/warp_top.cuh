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
  const auto greater = [](uint32_t a, uint32_t b) { return a > b ? a : b; };
  uint32_t most[kChunks];  // Of the lane's four keys of each chunk.
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    most[c] = greater(greater(key[4 * c], key[4 * c + 1]), greater(key[4 * c + 2], key[4 * c + 3]));
  }
  WarpPick own;
  for (int rank = 0; rank < count; ++rank) {
    uint32_t local = most[0];
#pragma unroll
    for (int c = 1; c < kChunks; ++c) local = greater(local, most[c]);
    const uint32_t best = __reduce_max_sync(kAllLanes, local);
    if (best == 0) break;
    // Places rise with the chunk, then with the lane, then within the four.
    unsigned holders = 0;
    int chunk = 0;
#pragma unroll
    for (int c = kChunks - 1; c >= 0; --c) {
      const unsigned lanes = __ballot_sync(kAllLanes, most[c] == best);
      if (lanes != 0) holders = lanes, chunk = c;
    }
    const int holder = __ffs(static_cast<int>(holders)) - 1;
    int first = 0;  // Of the lane's four, the first that is `best`; that of the holder counts.
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      if (c != chunk) continue;
      uint32_t* const four = key + 4 * c;
      first = four[0] == best ? 0 : four[1] == best ? 1 : four[2] == best ? 2 : 3;
      if (lane != holder) continue;
#pragma unroll
      for (int i = 0; i < 4; ++i) four[i] = i == first ? 0 : four[i];
      most[c] = greater(greater(four[0], four[1]), greater(four[2], four[3]));
    }
    const int place = PlaceOfValue(holder, 4 * chunk + __shfl_sync(kAllLanes, first, holder));
    if (lane == rank) own = {place, best};
  }
  return own;
}

}  // namespace epsim
