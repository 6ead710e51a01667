// The trace that the benchmarks of the hot path read: recorded steps of 8,192 tokens over 64 source ranks, 256 experts,
// top-8, 58 MoE layers (DeepSeek-V3's shape), raw chunks, skewed ids.  91 MB, written once a process into a temporary
// folder that goes away with it.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>

#include "engine/random_stream.h"

namespace epsim::bench_trace {

inline constexpr int kRanks = 64, kExperts = 256, kTopK = 8, kTokens = 8192, kLayers = 58, kSteps = 24;
inline constexpr size_t kLayerIds = size_t{kTokens} * kTopK;

// Draws the ids of one layer's tokens: expert e with a weight of 1 / (16 + its place in an order drawn for the layer),
// so that the hottest experts get five times the mean.
class SkewedIds {
 public:
  explicit SkewedIds(RandomStream* random);

  // kTopK distinct ids.
  template <typename Id>
  void Draw(RandomStream* random, Id* ids) const {
    for (int k = 0; k < kTopK;) {
      uint64_t bits = random->Next();
      for (int part = 0; part < 4 && k < kTopK; ++part, bits >>= 16) {
        const Id id = expert_of_draw_[bits % kDraws];
        if (std::find(ids, ids + k, id) == ids + k) ids[k++] = id;
      }
    }
  }

 private:
  static constexpr size_t kDraws = 1 << 14;
  static double Weight(size_t place) { return 1.0 / (16.0 + static_cast<double>(place)); }

  std::array<uint8_t, kDraws> expert_of_draw_;
};

class BenchTrace {
 public:
  static const BenchTrace& Get();
  ~BenchTrace();

  std::string path() const { return folder_ / "bench.eptrace"; }
  std::string folder() const { return folder_; }

 private:
  BenchTrace();
  std::filesystem::path folder_;
};

}  // namespace epsim::bench_trace
