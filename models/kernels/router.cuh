// The router on a GPU: a warp for each token, which reads its logits once and keeps them in registers.
#pragma once

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/device.cuh"
#include "models/kernels/exact_float.h"
#include "models/kernels/router.h"
#include "models/kernels/warp_top.cuh"

namespace epsim {

inline constexpr int kRouterThreads = 256;

// The sum over the warp in the order that router.h states; the same in all lanes.  part: P[4 lane], ....
__device__ __forceinline__ float SumOfParts(float* part) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) part[i] = Plus(part[i], __shfl_xor_sync(kAllLanes, part[i], lanes));
  }
  return Plus(Plus(part[0], part[1]), Plus(part[2], part[3]));
}

// The greatest key of some experts and the one that follows.
struct BestTwoKeys {
  uint32_t best = 0, second = 0;

  __device__ __forceinline__ void Add(uint32_t key) {
    second = key > best ? best : key > second ? key : second;
    best = key > best ? key : best;
  }
};

// OrderedBits of what a group is ranked by.
__device__ __forceinline__ uint32_t GroupKey(const RouterOptions& options, const BestTwoKeys& keys) {
  const float best = FloatOfOrdered(keys.best);
  return OrderedBits(options.group_rank == GroupRank::kBestTwo ? Plus(best, FloatOfOrdered(keys.second)) : best);
}

// Lane g returns group g's GroupKey(); behind the groups anything.  Any size of groups, one after another.
template <int kChunks>
__device__ __forceinline__ uint32_t GroupKeyOfLane(const RouterOptions& options, int size, const uint32_t* rank_key) {
  const int lane = LaneOfThread();
  uint32_t own = 0;
  for (int g = 0; g < options.groups; ++g) {
    BestTwoKeys keys;
#pragma unroll
    for (int v = 0; v < 4 * kChunks; ++v) {
      const unsigned in_group = static_cast<unsigned>(PlaceOfValue(lane, v) - g * size);
      keys.Add(in_group < static_cast<unsigned>(size) ? rank_key[v] : 0);
    }
    const uint32_t best = __reduce_max_sync(kAllLanes, keys.best);
    uint32_t second = 0;
    if (options.group_rank == GroupRank::kBestTwo) {
      const int holder = __ffs(static_cast<int>(__ballot_sync(kAllLanes, keys.best == best))) - 1;
      second = __reduce_max_sync(kAllLanes, lane == holder ? keys.second : keys.best);
    }
    const uint32_t group_key = GroupKey(options, {best, second});
    if (lane == g) own = group_key;
  }
  return own;
}

// The same for groups that have whole lanes of one chunk, all of a chunk at once: size / 4 neighbours are a group.
template <int kChunks>
__device__ __forceinline__ uint32_t GroupKeyOfLaneInChunks(const RouterOptions& options, int size,
                                                           const uint32_t* rank_key) {
  const int lane = LaneOfThread(), first = lane * size;  // Where group `lane` begins.
  uint32_t own = 0;
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    BestTwoKeys keys;
#pragma unroll
    for (int i = 0; i < 4; ++i) keys.Add(rank_key[4 * c + i]);
    for (int lanes = 1; lanes < size / 4; lanes *= 2) {
      const uint32_t best = __shfl_xor_sync(kAllLanes, keys.best, lanes);
      const uint32_t second = __shfl_xor_sync(kAllLanes, keys.second, lanes);
      const uint32_t less = best < keys.best ? best : keys.best, more = second > keys.second ? second : keys.second;
      keys = {best > keys.best ? best : keys.best, less > more ? less : more};
    }
    const uint32_t key = __shfl_sync(kAllLanes, GroupKey(options, keys), first % kRowChunk / 4);
    if (first / kRowChunk == c) own = key;
  }
  return own;
}

// Which groups are among the best, a bit each.  rank_key: OrderedBits of what groups are ranked by, 0 behind the row.
template <int kChunks>
__device__ __forceinline__ unsigned BestGroups(const RouterOptions& options, const uint32_t* rank_key) {
  const int lane = LaneOfThread(), size = options.experts / options.groups;
  const bool in_chunks = size % 4 == 0 && kRowChunk % size == 0;
  const uint32_t own = in_chunks ? GroupKeyOfLaneInChunks<kChunks>(options, size, rank_key)
                                 : GroupKeyOfLane<kChunks>(options, size, rank_key);
  int better = 0;
  for (int g = 0; g < options.groups; ++g) {
    const uint32_t other = __shfl_sync(kAllLanes, own, g);
    better += (other > own || (other == own && g < lane)) ? 1 : 0;
  }
  return __ballot_sync(kAllLanes, lane < options.groups && better < options.top_groups);
}

// logits: [tokens, experts], bias: [experts] or null, ids and weights: [tokens, top_k].  experts <= 128 kChunks.
template <int kChunks>
__global__ void __launch_bounds__(kRouterThreads)
    RouterKernel(RouterOptions options, const float* __restrict__ logits, const float* __restrict__ bias,
                 int32_t* __restrict__ ids, float* __restrict__ weights) {
  constexpr int kValues = 4 * kChunks;
  const int lane = LaneOfThread();
  const int token = static_cast<int>(blockIdx.x) * (kRouterThreads / kWarp) + WarpOfThread();
  if (token >= options.tokens) return;  // The whole warp.
  const int experts = options.experts, top_k = options.top_k;
  const bool softmax = options.scoring == RouterScoring::kSoftmax;
  const bool grouped = options.top_groups < options.groups;
  const bool best_two = grouped && options.group_rank == GroupRank::kBestTwo;
  const bool all_scores = bias != nullptr || best_two;
  const float* const row = logits + static_cast<size_t>(token) * experts;

  float value[kValues];  // The logits, then what experts are ranked by.
  LoadRow<kChunks>(row, experts, -__builtin_huge_valf(), value);
  uint32_t key[kValues];
  float most = 0, sum = 1;
  uint32_t most_key = 0;
#pragma unroll
  for (int v = 0; v < kValues; ++v) {
    key[v] = PlaceOfValue(lane, v) < experts ? OrderedBits(value[v]) : 0;
    most_key = key[v] > most_key ? key[v] : most_key;
  }
  if (softmax && (all_scores || !options.renormalize)) {
    most = FloatOfOrdered(__reduce_max_sync(kAllLanes, most_key));
    float part[4] = {0, 0, 0, 0};
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const float term = PlaceOfValue(lane, v) < experts ? Exp(Plus(value[v], -most)) : 0.0f;
      part[v % 4] = Plus(part[v % 4], term);
      if (all_scores) value[v] = term;
    }
    sum = SumOfParts(part);
    if (all_scores) {
#pragma unroll
      for (int v = 0; v < kValues; ++v) value[v] = Quotient(value[v], sum);
    }
  } else if (all_scores) {
#pragma unroll
    for (int v = 0; v < kValues; ++v) value[v] = Sigmoid(value[v]);
  }
  if (bias != nullptr) {
    float more[kValues];
    LoadRow<kChunks>(bias, experts, 0.0f, more);
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      value[v] = Plus(value[v], more[v]);
      key[v] = PlaceOfValue(lane, v) < experts ? OrderedBits(value[v]) : 0;
    }
  }

  if (grouped) {
    unsigned groups;
    if (best_two && bias == nullptr) {
      uint32_t rank_key[kValues];
#pragma unroll
      for (int v = 0; v < kValues; ++v) rank_key[v] = PlaceOfValue(lane, v) < experts ? OrderedBits(value[v]) : 0;
      groups = BestGroups<kChunks>(options, rank_key);
    } else {
      groups = BestGroups<kChunks>(options, key);
    }
    const int size = experts / options.groups;
#pragma unroll
    for (int v = 0, group = 0; v < kValues; ++v) {
      if (v % 4 == 0 || size % 4 != 0) group = PlaceOfValue(lane, v) / size;  // Four neighbours share it.
      if (group >= kMostRouterGroups || (groups >> group & 1) == 0) key[v] = 0;
    }
  }

  const WarpPick pick = PickGreatest<kChunks>(key, top_k);
  const bool picked = pick.place >= 0;
  const float logit = picked ? __ldg(row + pick.place) : -__builtin_huge_valf();
  if (softmax && options.renormalize) {
    most = FloatOfOrdered(__reduce_max_sync(kAllLanes, picked ? OrderedBits(logit) : 0u));
  }
  float weight = softmax ? Exp(Plus(logit, -most)) : Sigmoid(logit);
  if (options.renormalize) {
    float chosen_sum = 0;
    for (int k = 0; k < top_k; ++k) chosen_sum = Plus(chosen_sum, __shfl_sync(kAllLanes, weight, k));
    sum = softmax ? chosen_sum : Plus(chosen_sum, 1e-20f);
  }
  weight = Times(Quotient(weight, sum), options.scaling);
  if (picked) {
    const size_t out = static_cast<size_t>(token) * top_k + lane;
    ids[out] = pick.place;
    weights[out] = weight;
  }
}

// What the kernel does is in router.h.  The pointers are the device's, aligned to 16 bytes.
template <typename Stream>
absl::Status EnqueueRouter(const Stream& stream, const RouterOptions& options, const float* logits, const float* bias,
                           int32_t* ids, float* weights) {
  RETURN_IF_ERROR(CanImplement(options));
  const int64_t blocks = DivideUp(options.tokens, kRouterThreads / kWarp);
  const auto launch = [&](auto kernel) {
    return stream.Launch("router", kernel, blocks, kRouterThreads, 0, options, logits, bias, ids, weights);
  };
  switch (DivideUp(options.experts, kRowChunk)) {
    case 1:
      return launch(&RouterKernel<1>);
    case 2:
      return launch(&RouterKernel<2>);
    case 3:
      return launch(&RouterKernel<3>);
    default:
      return launch(&RouterKernel<4>);
  }
}

}  // namespace epsim
