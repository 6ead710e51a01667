// One simulated batch: what the kernel of sampled_load.h and its twin both do.
#pragma once

#include <cstdint>

#include "models/kernels/exact_float.h"
#include "models/kernels/philox.h"
#include "models/kernels/sampled_load.h"

namespace epsim {

EPSIM_HOST_DEVICE int CountBits(uint32_t bits) {
#ifdef __CUDA_ARCH__
  return __popc(bits);
#else
  return __builtin_popcount(bits);
#endif
}

// Bits of experts, whose words lie `stride` apart: on a GPU between those of other threads.
struct ExpertBits {
  uint32_t* words;
  int stride;

  EPSIM_HOST_DEVICE uint32_t& word(int i) const { return words[i * stride]; }
};

// The greatest number of experts on a chip that the batch makes active.  all, own: (experts + 31) / 32 words to work
// in.  threshold: 2^32 mod experts.
EPSIM_HOST_DEVICE int MostActiveOfBatch(const SampledLoadOptions& options, int64_t batch, uint32_t threshold,
                                        ExpertBits all, ExpertBits own) {
  const int words = (options.experts + 31) / 32;
  PhiloxStream random(options.seed, static_cast<uint64_t>(batch));
  for (int w = 0; w < words; ++w) all.word(w) = 0;
  for (int token = 0; token < options.tokens; ++token) {
    for (int w = 0; w < words; ++w) own.word(w) = 0;
    for (int k = 0; k < options.top_k; ++k) {
      uint32_t expert, bit;
      do {
        expert = random.Below(static_cast<uint32_t>(options.experts), threshold);
        bit = 1u << expert % 32;
      } while ((own.word(static_cast<int>(expert / 32)) & bit) != 0);
      own.word(static_cast<int>(expert / 32)) |= bit;
    }
    for (int w = 0; w < words; ++w) all.word(w) |= own.word(w);
  }
  int most = 0, first = 0;
  for (int chip = 0; chip < options.chips && first < options.experts; ++chip) {
    const int end = first + options.experts / options.chips + (chip < options.experts % options.chips ? 1 : 0);
    int active = 0;
    for (int w = first / 32; w * 32 < end; ++w) {
      uint32_t bits = all.word(w);
      if (w * 32 < first) bits &= ~0u << (first - w * 32);
      if (end - w * 32 < 32) bits &= (1u << (end - w * 32)) - 1;
      active += CountBits(bits);
    }
    most = active > most ? active : most;
    first = end;
  }
  return most;
}

}  // namespace epsim
