// Expert choice on a GPU without a dense matrix of what was chosen, in two kernels:
//
// TakeTokensKernel: a block for four experts.  Its threads read the experts' 16 bytes of each token's row once, into
//   registers, and find each expert's capacity-th greatest score by its digits (radix select: counts of 11, 11 and 10
//   bits in shared memory), then the lowest tokens among those that equal it.  Who took a token is four bits of a byte
//   that nobody else writes, so that nothing has to be cleared and nothing is added up atomically in global memory.
// ListExpertsKernel: a warp for each token, which has the same four experts in each lane.  The scores of a token are
//   read again only where more than top_k experts took it, or none.
//
// The order of everything is given by tokens and experts, never by which thread came first.
#pragma once

#include "absl/status/status.h"
#include "engine/status_macros.h"
#include "models/kernels/device.cuh"
#include "models/kernels/exact_float.h"
#include "models/kernels/expert_choice.h"
#include "models/kernels/warp_top.cuh"

namespace epsim {

inline constexpr int kTakeThreads = 1024;
inline constexpr int kTakeExperts = 4;  // Of a block: 16 bytes of a row.
inline constexpr int kTakeBins = 2048;
inline constexpr int kListThreads = 256;
inline constexpr int kListTokens = 32;  // Of a block.

struct TakeShared {
  unsigned bins[kTakeExperts][kTakeBins];
  unsigned warp_total[kTakeThreads / kWarp];
  // What the last scan found for each expert: the digit of the capacity-th key, and how many keys are above and in it.
  unsigned digit[kTakeExperts], above[kTakeExperts], equal[kTakeExperts];
};

struct FourKeys {
  uint32_t of[kTakeExperts];
};

// The keys of a token for four experts; 0 where there is no such token or expert.
__device__ __forceinline__ FourKeys LoadKeys(const ExpertChoiceOptions& options, const float* __restrict__ scores,
                                             int token, int first_expert) {
  FourKeys keys = {};
  if (token >= options.tokens) return keys;
  const float* const row = scores + static_cast<size_t>(token) * options.experts + first_expert;
  if (options.experts % 4 == 0) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(row));
    keys.of[0] = OrderedBits(four.x), keys.of[1] = OrderedBits(four.y);
    keys.of[2] = OrderedBits(four.z), keys.of[3] = OrderedBits(four.w);
  } else {
#pragma unroll
    for (int e = 0; e < kTakeExperts; ++e) {
      if (first_expert + e < options.experts) keys.of[e] = OrderedBits(__ldg(row + e));
    }
  }
  return keys;
}

// LoadKeys of the thread's tokens, kTakeThreads apart.
template <int kHeld>
__device__ __forceinline__ void LoadHeldKeys(const ExpertChoiceOptions& options, const float* __restrict__ scores,
                                             int first_expert, FourKeys* held) {
  const int thread = static_cast<int>(threadIdx.x);
  if (options.experts % 4 != 0) {
#pragma unroll
    for (int h = 0; h < kHeld; ++h) held[h] = LoadKeys(options, scores, h * kTakeThreads + thread, first_expert);
    return;
  }
  // All loads are under way before the first is waited for: behind the tokens the last one is read, so that none
  // depends on a branch.
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const int token = h * kTakeThreads + thread, there = token < options.tokens ? token : options.tokens - 1;
    const float* const row = scores + static_cast<size_t>(there) * options.experts + first_expert;
    const float4 four = __ldg(reinterpret_cast<const float4*>(row));
    held[h] = {{BitsOf(four.x), BitsOf(four.y), BitsOf(four.z), BitsOf(four.w)}};
  }
#pragma unroll
  for (int h = 0; h < kHeld; ++h) {
    const bool there = h * kTakeThreads + thread < options.tokens;
#pragma unroll
    for (int e = 0; e < kTakeExperts; ++e) held[h].of[e] = there ? OrderedBits(FloatOf(held[h].of[e])) : 0;
  }
}

// Finds, for each expert, the bin that has the need-th greatest key.  A quarter of the threads for each expert, who go
// from the highest bin down, eight bins each.
__device__ __forceinline__ void FindDigits(TakeShared* shared, const unsigned* need) {
  constexpr int kThreadsOfExpert = kTakeThreads / kTakeExperts, kBinsOfThread = kTakeBins / kThreadsOfExpert;
  constexpr int kWarpsOfExpert = kThreadsOfExpert / kWarp;
  const int expert = static_cast<int>(threadIdx.x) / kThreadsOfExpert;
  const int place = static_cast<int>(threadIdx.x) % kThreadsOfExpert;
  const int last_bin = kTakeBins - 1 - place * kBinsOfThread;
  unsigned bin[kBinsOfThread], own = 0;
#pragma unroll
  for (int i = 0; i < kBinsOfThread; ++i) {
    bin[i] = shared->bins[expert][last_bin - i];
    own += bin[i];
  }
  unsigned until = own;  // Keys in the bins of this thread and of those before it: of the warp, then of all.
#pragma unroll
  for (int delta = 1; delta < kWarp; delta *= 2) {
    const unsigned before = __shfl_up_sync(kAllLanes, until, delta);
    if (LaneOfThread() >= delta) until += before;
  }
  if (LaneOfThread() == kWarp - 1) shared->warp_total[WarpOfThread()] = until;
  __syncthreads();
  for (int w = 0; w < WarpOfThread() % kWarpsOfExpert; ++w) {
    until += shared->warp_total[WarpOfThread() / kWarpsOfExpert * kWarpsOfExpert + w];
  }
  unsigned above = until - own;
  unsigned wanted = need[0];
#pragma unroll
  for (int e = 1; e < kTakeExperts; ++e) wanted = expert == e ? need[e] : wanted;  // No index: registers have none.
  if (above < wanted && wanted <= until) {
#pragma unroll
    for (int i = 0; i < kBinsOfThread; ++i) {
      if (above < wanted && wanted <= above + bin[i]) {
        shared->digit[expert] = static_cast<unsigned>(last_bin - i);
        shared->above[expert] = above;
        shared->equal[expert] = bin[i];
      }
      above += bin[i];
    }
  }
  __syncthreads();
}

// taken: [experts / 4 rounded up, tokens], bit e of a byte: expert 4 row + e took the token.
// kHeld: keys that a thread keeps of each expert, for tokens <= kHeld * kTakeThreads; 0: they are read again for each
// digit.
template <int kHeld>
__global__ void __launch_bounds__(kTakeThreads)
    TakeTokensKernel(ExpertChoiceOptions options, const float* __restrict__ scores, uint8_t* __restrict__ taken) {
  TakeShared* const shared = SharedMemory<TakeShared>();
  const int first_expert = static_cast<int>(blockIdx.x) * kTakeExperts, thread = static_cast<int>(threadIdx.x);
  const int rounds = kHeld > 0 ? kHeld : (options.tokens + kTakeThreads - 1) / kTakeThreads;
  FourKeys held[kHeld > 0 ? kHeld : 1];
  if constexpr (kHeld > 0) LoadHeldKeys<kHeld>(options, scores, first_expert, held);
  const auto for_each_token = [&](auto visit) {
    if constexpr (kHeld > 0) {
#pragma unroll
      for (int h = 0; h < kHeld; ++h) visit(h * kTakeThreads + thread, held[h]);
    } else {
      for (int h = 0; h < rounds; ++h) {
        const int token = h * kTakeThreads + thread;
        visit(token, LoadKeys(options, scores, token, first_expert));
      }
    }
  };

  uint32_t bar[kTakeExperts] = {};  // The digits of the capacity-th key that are known; the others are 0.
  unsigned need[kTakeExperts];      // How many keys that have those digits are taken.
#pragma unroll
  for (int e = 0; e < kTakeExperts; ++e) need[e] = static_cast<unsigned>(options.capacity);
  uint32_t known = 0;  // The bits of those digits.
  bool ties = false;
#pragma unroll
  for (int digit = 0; digit < 3; ++digit) {
    const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
    const uint32_t digit_mask = digit == 2 ? 0x3ff : 0x7ff;
    for (int i = thread; i < kTakeExperts * kTakeBins / 4; i += kTakeThreads) {
      reinterpret_cast<uint4*>(shared->bins)[i] = uint4{0, 0, 0, 0};
    }
    __syncthreads();
    for_each_token([&](int token, const FourKeys& keys) {
      if (token >= options.tokens) return;
#pragma unroll
      for (int e = 0; e < kTakeExperts; ++e) {
        if (((keys.of[e] ^ bar[e]) & known) == 0) atomicAdd(&shared->bins[e][keys.of[e] >> shift & digit_mask], 1u);
      }
    });
    __syncthreads();
    FindDigits(shared, need);
    known |= digit_mask << shift;
    ties = false;
#pragma unroll
    for (int e = 0; e < kTakeExperts; ++e) {
      bar[e] |= shared->digit[e] << shift;
      need[e] -= shared->above[e];
      ties |= shared->equal[e] != need[e] && first_expert + e < options.experts;
    }
    if (!ties) break;  // All keys with these digits are taken.
    __syncthreads();
  }

  const int experts_here = options.experts - first_expert;  // The last block may have fewer than four.
  const unsigned experts_mask = experts_here >= kTakeExperts ? (1u << kTakeExperts) - 1 : (1u << experts_here) - 1;
  if (!ties) {
    for_each_token([&](int token, const FourKeys& keys) {
      if (token >= options.tokens) return;
      unsigned bits = 0;
#pragma unroll
      for (int e = 0; e < kTakeExperts; ++e) bits |= (keys.of[e] >= bar[e] ? 1u : 0u) << e;
      taken[static_cast<size_t>(blockIdx.x) * options.tokens + token] = static_cast<uint8_t>(bits & experts_mask);
    });
    return;
  }
  // Of the keys that equal the bar the first need[e] are taken, in the order of tokens.
  for_each_token([&](int token, const FourKeys& keys) {
    unsigned bits = 0;
#pragma unroll
    for (int e = 0; e < kTakeExperts; ++e) {
      const bool equal = token < options.tokens && keys.of[e] == bar[e];
      const unsigned equals = __ballot_sync(kAllLanes, equal);
      if (LaneOfThread() == 0) shared->warp_total[WarpOfThread()] = static_cast<unsigned>(__popc(equals));
      __syncthreads();
      const unsigned of_warp = shared->warp_total[LaneOfThread()];
      const unsigned before_warp = __reduce_add_sync(kAllLanes, LaneOfThread() < WarpOfThread() ? of_warp : 0u);
      const unsigned all = __reduce_add_sync(kAllLanes, of_warp);
      const unsigned before = before_warp + static_cast<unsigned>(__popc(equals & ((1u << LaneOfThread()) - 1)));
      bits |= (keys.of[e] > bar[e] || (equal && before < need[e]) ? 1u : 0u) << e;
      need[e] -= all < need[e] ? all : need[e];
      __syncthreads();
    }
    if (token < options.tokens) {
      taken[static_cast<size_t>(blockIdx.x) * options.tokens + token] = static_cast<uint8_t>(bits & experts_mask);
    }
  });
}

// Writes a token's list: of the experts whose bit is set in `taken` (bit v: PlaceOfValue(lane, v)) at most top_k, or,
// where there are none, the token's own.  All lanes of a warp; row: the token's scores.
template <int kChunks>
__device__ __forceinline__ void ListToken(const ExpertChoiceOptions& options, const float* __restrict__ row,
                                          unsigned taken, int32_t* ids, int32_t* count, float* weights) {
  constexpr int kValues = 4 * kChunks;
  const int lane = LaneOfThread();
  const int found = static_cast<int>(__reduce_add_sync(kAllLanes, static_cast<unsigned>(__popc(taken))));
  const bool own = found == 0 && options.fall_back;
  int listed = found;
  if (own || found > options.top_k) {
    float value[kValues];
    LoadRow<kChunks>(row, options.experts, 0.0f, value);
    uint32_t key[kValues];
#pragma unroll
    for (int v = 0; v < kValues; ++v) {
      const bool may = own ? PlaceOfValue(lane, v) < options.experts : (taken >> v & 1) != 0;
      key[v] = may ? OrderedBits(value[v]) : 0;
    }
    const WarpPick pick = PickGreatest<kChunks>(key, options.top_k);
    if (own) {
      if (lane < options.top_k) {
        ids[lane] = pick.place;
        weights[lane] = Plus(__ldg(row + pick.place), 0.0f);
      }
      if (lane == 0) *count = options.top_k;
      return;
    }
#pragma unroll
    for (int v = 0; v < kValues; ++v) taken &= key[v] != 0 ? ~(1u << v) : ~0u;  // The picked ones are left.
    listed = options.top_k;
  }
  int before = 0;  // Listed experts of lower ids.
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
    const unsigned four = taken >> 4 * c & 0xf;
    int below = 0, of_chunk = 0;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const unsigned lanes = __ballot_sync(kAllLanes, (four >> i & 1) != 0);
      below += __popc(lanes & ((1u << lane) - 1));
      of_chunk += __popc(lanes);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if ((four >> i & 1) == 0) continue;
      const int place = PlaceOfValue(lane, 4 * c + i), at = before + below + __popc(four & ((1u << i) - 1));
      ids[at] = place;
      weights[at] = Plus(__ldg(row + place), 0.0f);
    }
    before += of_chunk;
  }
  if (lane >= listed && lane < options.top_k) {
    ids[lane] = -1;
    weights[lane] = 0;
  }
  if (lane == 0) *count = listed;
}

struct ListShared {
  // Rows of 32 tokens' bytes, and four more so that the lanes, a row each, read from different banks.
  uint8_t taken[kMostRowChunks * kWarp][kListTokens + 4];
};

// taken: as TakeTokensKernel wrote it.  experts <= 128 kChunks.
template <int kChunks>
__global__ void __launch_bounds__(kListThreads)
    ListExpertsKernel(ExpertChoiceOptions options, const float* __restrict__ scores, const uint8_t* __restrict__ taken,
                      int32_t* __restrict__ ids, int32_t* __restrict__ counts, float* __restrict__ weights) {
  ListShared* const shared = SharedMemory<ListShared>();
  const int first = static_cast<int>(blockIdx.x) * kListTokens, rows = (options.experts + 3) / 4;
  for (int i = static_cast<int>(threadIdx.x); i < rows * kListTokens; i += kListThreads) {
    const int row = i / kListTokens, token = i % kListTokens;
    if (first + token < options.tokens) {
      shared->taken[row][token] = taken[static_cast<size_t>(row) * options.tokens + first + token];
    }
  }
  __syncthreads();
  for (int t = WarpOfThread(); t < kListTokens && first + t < options.tokens; t += kListThreads / kWarp) {
    unsigned own = 0;
#pragma unroll
    for (int c = 0; c < kChunks; ++c) {
      const int row = kWarp * c + LaneOfThread();
      if (row < rows) own |= static_cast<unsigned>(shared->taken[row][t]) << 4 * c;
    }
    const size_t token = static_cast<size_t>(first + t), out = token * options.top_k;
    ListToken<kChunks>(options, scores + token * options.experts, own, ids + out, counts + token, weights + out);
  }
}

// Bytes of device memory that EnqueueExpertChoice works in.
inline size_t FusedExpertChoiceBytes(const ExpertChoiceOptions& options) {
  return static_cast<size_t>(DivideUp(options.experts, kTakeExperts) * options.tokens);
}

// What the kernels do is in expert_choice.h.  The pointers are the device's, aligned to 16 bytes.
template <typename Stream>
absl::Status EnqueueExpertChoice(const Stream& stream, const ExpertChoiceOptions& options, const float* scores,
                                 int32_t* ids, int32_t* counts, float* weights, void* workspace) {
  RETURN_IF_ERROR(CanImplement(options));
  if (options.tokens == 0) return absl::OkStatus();
  uint8_t* const taken = static_cast<uint8_t*>(workspace);
  const auto take = [&](auto kernel) {
    return stream.Launch("expert choice: take tokens", kernel, DivideUp(options.experts, kTakeExperts), kTakeThreads,
                         sizeof(TakeShared), options, scores, taken);
  };
  const auto list = [&](auto kernel) {
    return stream.Launch("expert choice: list experts", kernel, DivideUp(options.tokens, kListTokens), kListThreads,
                         sizeof(ListShared), options, scores, taken, ids, counts, weights);
  };
  const auto take_by_tokens = [&] {
    switch (DivideUp(options.tokens, kTakeThreads)) {
      case 1:
        return take(&TakeTokensKernel<1>);
      case 2:
        return take(&TakeTokensKernel<2>);
      case 3:
      case 4:
        return take(&TakeTokensKernel<4>);
      default:
        return take(&TakeTokensKernel<0>);
    }
  };
  RETURN_IF_ERROR(take_by_tokens());
  switch (DivideUp(options.experts, kRowChunk)) {
    case 1:
      return list(&ListExpertsKernel<1>);
    case 2:
      return list(&ListExpertsKernel<2>);
    case 3:
      return list(&ListExpertsKernel<3>);
    default:
      return list(&ListExpertsKernel<4>);
  }
}

}  // namespace epsim
