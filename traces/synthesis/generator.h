// Draws the rows of a synthetic trace, all layers, in the order of the trace; the state that outlives a row lives here:
// the last ids of every running request and which experts are hot now.
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "traces/synthesis/layer_draws.h"
#include "traces/synthesis/synthesis.pb.h"

namespace epsim {

class Generator {
 public:
  // `config` is valid.  `places`: how many requests run at a time.
  Generator(const SynthesisConfig& config, int64_t places);

  struct Token {
    uint32_t place = 0;  // Whose previous token it follows.
    uint16_t domain = 0;
    bool first = false;  // Of its request: follows none.
  };

  // Where the ids of the i-th token and layer l go: ids + i * token_stride + l * layer_stride, [top_k].
  struct Layout {
    int32_t* ids;
    size_t token_stride, layer_stride;
  };

  // Draws the next rows.  Popularity drifts between calls, never within.
  void Draw(absl::Span<const Token> tokens, const Layout& layout);

 private:
  struct Hot {
    std::vector<int> hot, cold;  // Experts, as numbered in the weights.
    RandomStream random;
  };

  void DriftOnce();

  const int layers_, top_k_;
  const int64_t places_;
  const Drift drift_;
  uint64_t drawn_ = 0, next_drift_;
  std::vector<LayerDraws> draws_;   // [layers]
  std::vector<Hot> hot_;            // [layers] if experts are exchanged.
  std::vector<uint16_t> previous_;  // [layers, places, top_k]
};

}  // namespace epsim
