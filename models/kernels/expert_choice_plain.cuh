// Expert choice as it is put together from what libraries have, the baseline of expert_choice.cuh: the scores are
// transposed, every expert's tokens are sorted, what was taken is scattered into a dense matrix [tokens, experts], the
// fall-back is computed for every token, and a last pass reads all of it.
#pragma once

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/device.cuh"
#include "models/kernels/exact_float.h"
#include "models/kernels/expert_choice.cuh"
#include "models/kernels/warp_top.cuh"

namespace epsim {

inline constexpr int kPlainThreads = 256;
inline constexpr int kTransposeTile = 32;

struct TransposeShared {
  uint32_t tile[kTransposeTile][kTransposeTile + 1];
};

// keys: [experts, tokens], OrderedBits of the scores; values: likewise, the token.
__global__ void __launch_bounds__(kPlainThreads)
    TransposeKeysKernel(ExpertChoiceOptions options, const float* __restrict__ scores, uint32_t* __restrict__ keys,
                        int32_t* __restrict__ values) {
  TransposeShared* const shared = SharedMemory<TransposeShared>();
  const int tiles = (options.experts + kTransposeTile - 1) / kTransposeTile;
  const int first_expert = static_cast<int>(blockIdx.x) % tiles * kTransposeTile;
  const int first_token = static_cast<int>(blockIdx.x) / tiles * kTransposeTile;
  const int lane = LaneOfThread();
  for (int i = WarpOfThread(); i < kTransposeTile; i += kPlainThreads / kWarp) {
    if (first_token + i < options.tokens && first_expert + lane < options.experts) {
      shared->tile[i][lane] =
          OrderedBits(scores[static_cast<size_t>(first_token + i) * options.experts + first_expert + lane]);
    }
  }
  __syncthreads();
  for (int i = WarpOfThread(); i < kTransposeTile; i += kPlainThreads / kWarp) {
    if (first_expert + i < options.experts && first_token + lane < options.tokens) {
      const size_t at = static_cast<size_t>(first_expert + i) * options.tokens + first_token + lane;
      keys[at] = shared->tile[lane][i];
      values[at] = first_token + lane;
    }
  }
}

// dense: [tokens, experts], 1 where the expert took the token; zeros before.  sorted: [experts, tokens].
__global__ void __launch_bounds__(kPlainThreads)
    ScatterTakenKernel(ExpertChoiceOptions options, const int32_t* __restrict__ sorted, float* __restrict__ dense) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kPlainThreads + threadIdx.x;
  if (i >= static_cast<int64_t>(options.experts) * options.capacity) return;
  const int expert = static_cast<int>(i / options.capacity), place = static_cast<int>(i % options.capacity);
  const int32_t token = sorted[static_cast<size_t>(expert) * options.tokens + place];
  dense[static_cast<size_t>(token) * options.experts + expert] = 1;
}

// own: [tokens, top_k], each token's own choice, the best first.
template <int kChunks>
__global__ void __launch_bounds__(kPlainThreads)
    OwnChoiceKernel(ExpertChoiceOptions options, const float* __restrict__ scores, int32_t* __restrict__ own) {
  const int token = static_cast<int>(blockIdx.x) * (kPlainThreads / kWarp) + WarpOfThread();
  if (token >= options.tokens) return;  // The whole warp.
  float value[4 * kChunks];
  LoadRow<kChunks>(scores + static_cast<size_t>(token) * options.experts, options.experts, 0.0f, value);
  uint32_t key[4 * kChunks];
#pragma unroll
  for (int v = 0; v < 4 * kChunks; ++v) {
    key[v] = PlaceOfValue(LaneOfThread(), v) < options.experts ? OrderedBits(value[v]) : 0;
  }
  const WarpPick pick = PickGreatest<kChunks>(key, options.top_k);
  if (LaneOfThread() < options.top_k) own[static_cast<size_t>(token) * options.top_k + LaneOfThread()] = pick.place;
}

template <int kChunks>
__global__ void __launch_bounds__(kPlainThreads)
    ReadDenseKernel(ExpertChoiceOptions options, const float* __restrict__ scores, const float* __restrict__ dense,
                    const int32_t* __restrict__ own, int32_t* __restrict__ ids, int32_t* __restrict__ counts,
                    float* __restrict__ weights) {
  const int lane = LaneOfThread(), top_k = options.top_k;
  const int token = static_cast<int>(blockIdx.x) * (kPlainThreads / kWarp) + WarpOfThread();
  if (token >= options.tokens) return;  // The whole warp.
  const float* const row = scores + static_cast<size_t>(token) * options.experts;
  float value[4 * kChunks];
  LoadRow<kChunks>(dense + static_cast<size_t>(token) * options.experts, options.experts, 0.0f, value);
  unsigned taken = 0;
#pragma unroll
  for (int v = 0; v < 4 * kChunks; ++v) taken |= (value[v] != 0 ? 1u : 0u) << v;
  const size_t out = static_cast<size_t>(token) * top_k;
  if (options.fall_back && __ballot_sync(kAllLanes, taken != 0) == 0) {
    if (lane < top_k) {
      ids[out + lane] = own[out + lane];
      weights[out + lane] = Plus(__ldg(row + own[out + lane]), 0.0f);
    }
    if (lane == 0) counts[token] = top_k;
    return;
  }
  ListToken<kChunks>(options, row, taken, ids + out, counts + token, weights + out);
}

// Where in the workspace what lies.
struct PlainWorkspace {
  explicit PlainWorkspace(const ExpertChoiceOptions& options) {
    const size_t scores = sizeof(float) * static_cast<size_t>(options.tokens) * static_cast<size_t>(options.experts);
    const size_t all = (scores + 255) / 256 * 256;
    sorted_keys = all, values = 2 * all, sorted = 3 * all, dense = 4 * all, own = 5 * all;
    const size_t chosen = sizeof(int32_t) * static_cast<size_t>(options.tokens) * static_cast<size_t>(options.top_k);
    sort = own + (chosen + 255) / 256 * 256;
  }
  size_t keys = 0, sorted_keys, values, sorted, dense, own, sort;
};

// Beyond what CudaStream has, `stream` sorts the rows of a matrix [rows, columns], greatest first, equal keys in order:
//   size_t SortBytes(int rows, int columns) const;
//   absl::Status SortRows(int rows, int columns, const uint32_t* keys, uint32_t* sorted_keys, const int32_t* values,
//                         int32_t* sorted_values, void* workspace, size_t workspace_bytes) const;
template <typename Stream>
size_t PlainExpertChoiceBytes(const Stream& stream, const ExpertChoiceOptions& options) {
  return PlainWorkspace(options).sort + stream.SortBytes(options.experts, options.tokens);
}

// As EnqueueExpertChoice; workspace: PlainExpertChoiceBytes.
template <typename Stream>
absl::Status EnqueuePlainExpertChoice(const Stream& stream, const ExpertChoiceOptions& options, const float* scores,
                                      int32_t* ids, int32_t* counts, float* weights, void* workspace) {
  RETURN_IF_ERROR(CanImplement(options));
  if (options.tokens == 0) return absl::OkStatus();
  const PlainWorkspace at(options);
  const auto place = [&](size_t offset) { return static_cast<void*>(static_cast<unsigned char*>(workspace) + offset); };
  uint32_t* const keys = static_cast<uint32_t*>(place(at.keys));
  uint32_t* const sorted_keys = static_cast<uint32_t*>(place(at.sorted_keys));
  int32_t* const values = static_cast<int32_t*>(place(at.values));
  int32_t* const sorted = static_cast<int32_t*>(place(at.sorted));
  float* const dense = static_cast<float*>(place(at.dense));
  int32_t* const own = static_cast<int32_t*>(place(at.own));
  const int64_t tiles = DivideUp(options.tokens, kTransposeTile) * DivideUp(options.experts, kTransposeTile);
  const int64_t token_blocks = DivideUp(options.tokens, kPlainThreads / kWarp);
  const int64_t pairs = static_cast<int64_t>(options.experts) * options.capacity;

  RETURN_IF_ERROR(stream.Launch("plain expert choice: transpose", &TransposeKeysKernel, tiles, kPlainThreads,
                                sizeof(TransposeShared), options, scores, keys, values));
  RETURN_IF_ERROR(stream.SortRows(options.experts, options.tokens, keys, sorted_keys, values, sorted, place(at.sort),
                                  stream.SortBytes(options.experts, options.tokens)));
  RETURN_IF_ERROR(stream.Fill("plain expert choice: dense matrix", dense, 0,
                              sizeof(float) * static_cast<size_t>(options.tokens) * options.experts));
  RETURN_IF_ERROR(stream.Launch("plain expert choice: scatter", &ScatterTakenKernel, DivideUp(pairs, kPlainThreads),
                                kPlainThreads, 0, options, sorted, dense));
  const auto by_token = [&](auto own_choice, auto read_dense) -> absl::Status {
    RETURN_IF_ERROR(stream.Launch("plain expert choice: own choice", own_choice, token_blocks, kPlainThreads, 0,
                                  options, scores, own));
    return stream.Launch("plain expert choice: read dense matrix", read_dense, token_blocks, kPlainThreads, 0, options,
                         scores, dense, own, ids, counts, weights);
  };
  switch (DivideUp(options.experts, kRowChunk)) {
    case 1:
      return by_token(&OwnChoiceKernel<1>, &ReadDenseKernel<1>);
    case 2:
      return by_token(&OwnChoiceKernel<2>, &ReadDenseKernel<2>);
    case 3:
      return by_token(&OwnChoiceKernel<3>, &ReadDenseKernel<3>);
    default:
      return by_token(&OwnChoiceKernel<4>, &ReadDenseKernel<4>);
  }
}

}  // namespace epsim
