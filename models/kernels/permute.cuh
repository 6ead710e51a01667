// Permute on a GPU.  The plan takes three kernels over tiles of pairs: how many pairs of a tile go to each slot, where
// each slot begins and what earlier tiles have put there, and the row of each pair.  Nothing depends on which thread
// came first.  Rows are moved by a block for each token, 16 bytes a thread: a token's row is read once and written to
// all its places.
#pragma once

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/device.cuh"
#include "models/kernels/exact_float.h"
#include "models/kernels/permute.h"

namespace epsim {

inline constexpr int kPermuteThreads = 256;
inline constexpr int kPermuteWarps = kPermuteThreads / kWarp;
inline constexpr int kTilePairs = 2048;
inline constexpr int kOffsetThreads = 1024;
static_assert(kOffsetThreads >= kMostPermuteSlots, "a thread for each slot");

inline int64_t PermuteTiles(const PermuteOptions& options) {
  return DivideUp(int64_t{options.tokens} * options.top_k, kTilePairs);
}

// tile_slots: [tiles, slots], pairs of the tile that go to each; tile_ranks: [tiles, ranks], tokens whose first pair on
// that rank is in the tile.  Shared memory: slots + ranks whole numbers.
__global__ void __launch_bounds__(kPermuteThreads)
    CountPairsKernel(PermuteOptions options, const int32_t* __restrict__ slots, int32_t* __restrict__ tile_slots,
                     int32_t* __restrict__ tile_ranks) {
  int32_t* const of_slot = SharedMemory<int32_t>();
  int32_t* const of_rank = of_slot + options.slots;
  for (int i = static_cast<int>(threadIdx.x); i < options.slots + options.ranks; i += kPermuteThreads) of_slot[i] = 0;
  __syncthreads();
  const int64_t pairs = int64_t{options.tokens} * options.top_k;
  const int64_t first = int64_t{blockIdx.x} * kTilePairs;
  const int slots_of_rank = options.slots / options.ranks;
  for (int i = static_cast<int>(threadIdx.x); i < kTilePairs && first + i < pairs; i += kPermuteThreads) {
    const int64_t pair = first + i;
    const int32_t slot = __ldg(slots + pair);
    if (slot < 0) continue;
    atomicAdd(of_slot + slot, 1);
    const int rank = slot / slots_of_rank;
    bool again = false;  // The token has been there with an earlier pair.
    for (int back = static_cast<int>(pair % options.top_k); back > 0; --back) {
      const int32_t earlier = __ldg(slots + pair - back);
      again |= earlier >= 0 && earlier / slots_of_rank == rank;
    }
    if (!again) atomicAdd(of_rank + rank, 1);
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < options.slots; i += kPermuteThreads) {
    tile_slots[size_t{blockIdx.x} * options.slots + i] = of_slot[i];
  }
  for (int i = static_cast<int>(threadIdx.x); i < options.ranks; i += kPermuteThreads) {
    tile_ranks[size_t{blockIdx.x} * options.ranks + i] = of_rank[i];
  }
}

struct OffsetShared {
  int32_t warp_total[kOffsetThreads / kWarp];
};

// One block.  tile_slots becomes the row where the tile's first pair of each slot goes.
__global__ void __launch_bounds__(kOffsetThreads)
    OffsetsOfSlotsKernel(PermuteOptions options, int tiles, int32_t* __restrict__ tile_slots,
                         const int32_t* __restrict__ tile_ranks, int32_t* __restrict__ offsets,
                         int32_t* __restrict__ counts, int32_t* __restrict__ tokens_per_rank) {
  OffsetShared* const shared = SharedMemory<OffsetShared>();
  const int slot = static_cast<int>(threadIdx.x), lane = LaneOfThread();
  int32_t count = 0;
  if (slot < options.slots) {
    for (int tile = 0; tile < tiles; ++tile) count += tile_slots[static_cast<size_t>(tile) * options.slots + slot];
  }
  const int32_t aligned = (count + options.alignment - 1) / options.alignment * options.alignment;
  int32_t until = aligned;  // Rows of the slots before, and of this one: of the warp, then of all.
#pragma unroll
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const int32_t before = __shfl_up_sync(kAllLanes, until, delta);
    if (lane >= delta) until += before;
  }
  if (lane == kWarp - 1) shared->warp_total[WarpOfThread()] = until;
  __syncthreads();
  for (int w = 0; w < WarpOfThread(); ++w) until += shared->warp_total[w];
  if (slot < options.slots) {
    counts[slot] = count;
    offsets[slot] = until - aligned;
    if (slot == options.slots - 1) offsets[options.slots] = until;
    int32_t next = until - aligned;
    for (int tile = 0; tile < tiles; ++tile) {
      int32_t* const of_tile = tile_slots + static_cast<size_t>(tile) * options.slots + slot;
      const int32_t here = *of_tile;
      *of_tile = next;
      next += here;
    }
  }
  for (int rank = slot; rank < options.ranks; rank += kOffsetThreads) {
    int32_t tokens = 0;
    for (int tile = 0; tile < tiles; ++tile) tokens += tile_ranks[static_cast<size_t>(tile) * options.ranks + rank];
    tokens_per_rank[rank] = tokens;
  }
}

// rows: [tokens, top_k].  Each warp has an eighth of the tile's pairs, in order.  Shared memory: [warps, slots] whole
// numbers.
__global__ void __launch_bounds__(kPermuteThreads)
    PlaceRowsKernel(PermuteOptions options, const int32_t* __restrict__ slots, const int32_t* __restrict__ tile_slots,
                    int32_t* __restrict__ rows) {
  int32_t* const next = SharedMemory<int32_t>();  // [warps, slots]: pairs of the warp; then its next row.
  constexpr int kWarpPairs = kTilePairs / kPermuteWarps;
  const int64_t pairs = int64_t{options.tokens} * options.top_k;
  const int64_t first = int64_t{blockIdx.x} * kTilePairs + WarpOfThread() * kWarpPairs;
  const int lane = LaneOfThread();
  for (int i = static_cast<int>(threadIdx.x); i < kPermuteWarps * options.slots; i += kPermuteThreads) next[i] = 0;
  __syncthreads();
  int32_t* const own = next + WarpOfThread() * options.slots;
  int32_t slot[kWarpPairs / kWarp];
#pragma unroll
  for (int i = 0; i < kWarpPairs / kWarp; ++i) {
    const int64_t pair = first + i * kWarp + lane;
    slot[i] = pair < pairs ? __ldg(slots + pair) : -1;
    if (slot[i] >= 0) atomicAdd(own + slot[i], 1);
  }
  __syncthreads();
  for (int s = static_cast<int>(threadIdx.x); s < options.slots; s += kPermuteThreads) {
    int32_t row = tile_slots[size_t{blockIdx.x} * options.slots + s];
#pragma unroll
    for (int w = 0; w < kPermuteWarps; ++w) {
      const int32_t here = next[w * options.slots + s];
      next[w * options.slots + s] = row;
      row += here;
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kWarpPairs / kWarp; ++i) {
    const int64_t pair = first + i * kWarp + lane;
    const unsigned same = __match_any_sync(kAllLanes, slot[i]);
    const int before = __popc(same & ((1u << lane) - 1));
    const int32_t row = slot[i] >= 0 ? own[slot[i]] + before : -1;
    __syncwarp();
    if (slot[i] >= 0 && before == 0) own[slot[i]] = row + __popc(same);
    __syncwarp();
    if (pair < pairs) rows[pair] = row;
  }
}

struct TokenRows {
  int32_t row[kMostPermuteTopK];
  float weight[kMostPermuteTopK];
};

// vectors: 16 bytes each in a row of values; words: 4 bytes each in a row of scales.
__global__ void __launch_bounds__(kPermuteThreads)
    CopyRowsKernel(PermuteOptions options, int vectors, int words, const int32_t* __restrict__ rows,
                   const uint4* __restrict__ values, const uint32_t* __restrict__ scales,
                   uint4* __restrict__ permuted_values, uint32_t* __restrict__ permuted_scales) {
  TokenRows* const shared = SharedMemory<TokenRows>();
  const int thread = static_cast<int>(threadIdx.x), top_k = options.top_k;
  const size_t token = blockIdx.x;
  if (thread < top_k) shared->row[thread] = __ldg(rows + token * top_k + thread);
  __syncthreads();
  constexpr int kInFlight = 4;
  for (int first = thread; first < vectors; first += kInFlight * kPermuteThreads) {
    uint4 value[kInFlight];
#pragma unroll
    for (int i = 0; i < kInFlight; ++i) {
      const int at = first + i * kPermuteThreads;
      if (at < vectors) value[i] = __ldcs(values + token * vectors + at);  // Read once.
    }
    for (int k = 0; k < top_k; ++k) {
      const int32_t row = shared->row[k];
      if (row < 0) continue;
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int at = first + i * kPermuteThreads;
        if (at < vectors) permuted_values[static_cast<size_t>(row) * vectors + at] = value[i];
      }
    }
  }
  for (int at = thread; at < words; at += kPermuteThreads) {
    const uint32_t word = __ldg(scales + token * words + at);
    for (int k = 0; k < top_k; ++k) {
      const int32_t row = shared->row[k];
      if (row >= 0) permuted_scales[static_cast<size_t>(row) * words + at] = word;
    }
  }
}

// sum[0] += weight * the lower bf16 of `two`, sum[1] likewise the upper.
__device__ __forceinline__ void AddTwo(float weight, unsigned two, float* sum) {
  sum[0] = Plus(sum[0], Times(weight, FloatOf(two << 16)));
  sum[1] = Plus(sum[1], Times(weight, FloatOf(two & 0xffff'0000u)));
}

__device__ __forceinline__ unsigned TwoBf16(const float* sum) {
  return unsigned{Bf16Of(sum[0])} | unsigned{Bf16Of(sum[1])} << 16;
}

// vectors: of eight values, in a row.
__global__ void __launch_bounds__(kPermuteThreads)
    ReturnRowsKernel(PermuteOptions options, int vectors, const int32_t* __restrict__ rows,
                     const float* __restrict__ weights, const uint4* __restrict__ permuted, uint4* __restrict__ out) {
  TokenRows* const shared = SharedMemory<TokenRows>();
  const int thread = static_cast<int>(threadIdx.x), top_k = options.top_k;
  const size_t token = blockIdx.x;
  if (thread < top_k) {
    shared->row[thread] = __ldg(rows + token * top_k + thread);
    shared->weight[thread] = __ldg(weights + token * top_k + thread);
  }
  __syncthreads();
  constexpr int kInFlight = 8;
  for (int at = thread; at < vectors; at += kPermuteThreads) {
    float sum[8] = {};
    for (int first = 0; first < top_k; first += kInFlight) {
      uint4 value[kInFlight];
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        const int32_t row = first + i < top_k ? shared->row[first + i] : -1;
        value[i] = uint4{0, 0, 0, 0};
        if (row >= 0) value[i] = __ldcs(permuted + static_cast<size_t>(row) * vectors + at);
      }
#pragma unroll
      for (int i = 0; i < kInFlight; ++i) {
        if (first + i >= top_k || shared->row[first + i] < 0) continue;
        const float weight = shared->weight[first + i];
        AddTwo(weight, value[i].x, sum);
        AddTwo(weight, value[i].y, sum + 2);
        AddTwo(weight, value[i].z, sum + 4);
        AddTwo(weight, value[i].w, sum + 6);
      }
    }
    out[token * vectors + at] = uint4{TwoBf16(sum), TwoBf16(sum + 2), TwoBf16(sum + 4), TwoBf16(sum + 6)};
  }
}

inline size_t RowPlanBytes(const PermuteOptions& options) {
  return sizeof(int32_t) * static_cast<size_t>(PermuteTiles(options) * (options.slots + options.ranks));
}

// What the kernels do is in permute.h.  The pointers are the device's, aligned to 16 bytes.
template <typename Stream>
absl::Status EnqueueRowPlan(const Stream& stream, const PermuteOptions& options, const int32_t* slots, int32_t* rows,
                            int32_t* offsets, int32_t* counts, int32_t* tokens_per_rank, void* workspace) {
  RETURN_IF_ERROR(CanImplement(options));
  const int64_t tiles = PermuteTiles(options);
  int32_t* const tile_slots = static_cast<int32_t*>(workspace);
  int32_t* const tile_ranks = tile_slots + tiles * options.slots;
  const size_t of_slots = sizeof(int32_t) * static_cast<size_t>(options.slots);
  RETURN_IF_ERROR(stream.Launch("permute: count", &CountPairsKernel, tiles, kPermuteThreads,
                                of_slots + sizeof(int32_t) * static_cast<size_t>(options.ranks), options, slots,
                                tile_slots, tile_ranks));
  RETURN_IF_ERROR(stream.Launch("permute: offsets", &OffsetsOfSlotsKernel, 1, kOffsetThreads, sizeof(OffsetShared),
                                options, static_cast<int>(tiles), tile_slots, tile_ranks, offsets, counts,
                                tokens_per_rank));
  return stream.Launch("permute: place", &PlaceRowsKernel, tiles, kPermuteThreads, kPermuteWarps * of_slots, options,
                       slots, tile_slots, rows);
}

template <typename Stream>
absl::Status EnqueuePermute(const Stream& stream, const PermuteOptions& options, const RowBytes& bytes,
                            const int32_t* rows, const void* values, const void* scales, void* permuted_values,
                            void* permuted_scales) {
  RETURN_IF_ERROR(CanImplement(options));
  RETURN_IF_ERROR(CheckRowBytes(bytes));
  return stream.Launch("permute", &CopyRowsKernel, options.tokens, kPermuteThreads, sizeof(TokenRows), options,
                       static_cast<int>(bytes.values / 16), static_cast<int>(bytes.scales / 4), rows,
                       static_cast<const uint4*>(values), static_cast<const uint32_t*>(scales),
                       static_cast<uint4*>(permuted_values), static_cast<uint32_t*>(permuted_scales));
}

template <typename Stream>
absl::Status EnqueueUnpermute(const Stream& stream, const PermuteOptions& options, int hidden, const int32_t* rows,
                              const float* weights, const uint16_t* permuted, uint16_t* out) {
  RETURN_IF_ERROR(CanImplement(options));
  RETURN_IF_ERROR(CheckHidden(hidden));
  return stream.Launch("unpermute", &ReturnRowsKernel, options.tokens, kPermuteThreads, sizeof(TokenRows), options,
                       hidden / 8, rows, weights, reinterpret_cast<const uint4*>(permuted),
                       reinterpret_cast<uint4*>(out));
}

}  // namespace epsim
