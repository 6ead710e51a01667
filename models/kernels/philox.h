// Random numbers by counter: Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").  The
// n-th number of a stream takes no memory of those before it, so that a GPU's threads draw what a CPU would.
#pragma once

#include <cstdint>

#include "models/kernels/exact_float.h"

namespace epsim {

struct PhiloxBlock {
  uint32_t word[4];
};

// Ten rounds: of words (a, b, c, d) and keys (k, l) one makes (high(M1 c) ^ b ^ k, low(M1 c), high(M0 a) ^ d ^ l,
// low(M0 a)).
EPSIM_HOST_DEVICE PhiloxBlock Philox(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  uint32_t a = counter.word[0], b = counter.word[1], c = counter.word[2], d = counter.word[3];
  for (int round = 0; round < 10; ++round) {
    const uint64_t first = uint64_t{0xd251'1f53u} * a, second = uint64_t{0xcd9e'8d57u} * c;
    a = static_cast<uint32_t>(second >> 32) ^ b ^ key0;
    b = static_cast<uint32_t>(second);
    c = static_cast<uint32_t>(first >> 32) ^ d ^ key1;
    d = static_cast<uint32_t>(first);
    key0 += 0x9e37'79b9u;
    key1 += 0xbb67'ae85u;
  }
  return {{a, b, c, d}};
}

// The numbers of one stream of a seed, in order.
class PhiloxStream {
 public:
  EPSIM_HOST_DEVICE PhiloxStream(uint64_t seed, uint64_t stream) : seed_(seed), stream_(stream) {}

  EPSIM_HOST_DEVICE uint32_t Next() {
    if (left_ == 0) {
      block_ = Philox({{next_++, 0, static_cast<uint32_t>(stream_), static_cast<uint32_t>(stream_ >> 32)}},
                      static_cast<uint32_t>(seed_), static_cast<uint32_t>(seed_ >> 32));
      left_ = 4;
    }
    const uint32_t first = block_.word[0];
    block_ = {{block_.word[1], block_.word[2], block_.word[3], 0}};
    --left_;
    return first;
  }

  // Uniform below `bound`, without bias (Lemire 2019).  threshold: 2^32 mod bound.
  EPSIM_HOST_DEVICE uint32_t Below(uint32_t bound, uint32_t threshold) {
    while (true) {
      const uint64_t product = uint64_t{Next()} * bound;
      if (static_cast<uint32_t>(product) >= threshold) return static_cast<uint32_t>(product >> 32);
    }
  }

 private:
  uint64_t seed_, stream_;
  uint32_t next_ = 0;
  int left_ = 0;
  PhiloxBlock block_ = {};
};

}  // namespace epsim
