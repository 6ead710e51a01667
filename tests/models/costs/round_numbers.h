// A GPU and a model whose costs can be worked out by hand: 1 ps a byte, no time for an operation unless a test says how
// much.  Kernels start in 1 us, grouped GEMMs in 3 us, latent attention in decode in 5 us.  One SM takes tiles of 16
// rows one after the other, each of them as it comes: all of a product with n a multiple of 16 takes 2 * rows * n * k
// operations.  Rows are not permuted.
#pragma once

#include <cmath>
#include <memory>
#include <string>

#include "engine/text_proto.h"
#include "gtest/gtest.h"
#include "models/costs/cost_model.h"

namespace epsim {

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  const absl::Status status = ParseTextProto(text, "test", &message);
  EXPECT_TRUE(status.ok()) << status;
  return message;
}

inline GpuSpec RoundGpu() {
  return Parse<GpuSpec>(R"(name: "Round" memory: "80 GB" memory_bandwidth: "1 TB/s"
                           bf16: "900000 PFLOP/s" fp8: "900000 PFLOP/s" fp4: "900000 PFLOP/s" sms: 1)");
}

// Of a kernel: `memory` and `tiles` ps.
inline double Both(double memory, double tiles) { return std::sqrt(memory * memory + tiles * tiles); }

inline CostConfig RoundConfig(const std::string& precision = "") {
  return Parse<CostConfig>("permutation: false precision { " + precision + R"( }
      roofline {
        gemm { memory_efficiency: 1 compute_efficiency: 1 floor: "1 us" grouped_floor: "3 us" tile_start: "0 us"
               sm_bandwidth: "900000 TB/s" tile_tokens: 16 widest_tile: 128 }
        attention { decode_floor: "5 us" decode_compute_efficiency: 1 prefill_compute_efficiency: 1 } })");
}

inline ModelSpec RoundModel(const std::string& attention = "gqa { kv_heads: 2 head_dim: 32 }") {
  return Parse<ModelSpec>(R"(name: "Round" layers: 4 moe_layers: 3 hidden: 256 dense_intermediate: 512
      experts: 8 top_k: 2 moe_intermediate: 128 shared_experts: 1 shared_intermediate: 512
      expert_groups: 1 top_groups: 1 heads: 4 vocabulary: 1024 scoring: SOFTMAX )" +
                          attention);
}

inline std::unique_ptr<CostModel> RoundCosts(const CostConfig& config = RoundConfig(),
                                             const ModelSpec& model = RoundModel(), const GpuSpec& gpu = RoundGpu()) {
  absl::StatusOr<std::unique_ptr<CostModel>> costs = NewCostModel(config, model, gpu);
  EXPECT_TRUE(costs.ok()) << costs.status();
  return *std::move(costs);
}

// Decode of one token in each sequence, whose contexts have `context` tokens in all.
inline AttentionLoad Decode(int64_t sequences, int64_t context) {
  return {.tokens = sequences,
          .sequences = sequences,
          .decode_tokens = sequences,
          .attended_tokens = context,
          .context_tokens = context,
          .output_tokens = sequences};
}

// `sequences` prefills of `tokens` tokens each, at the end of contexts of `context` tokens each.
inline AttentionLoad Prefill(int64_t sequences, int64_t tokens, int64_t context) {
  return {.tokens = sequences * tokens,
          .sequences = sequences,
          .decode_tokens = 0,
          .attended_tokens = sequences * (tokens * context - tokens * (tokens - 1) / 2),
          .context_tokens = sequences * context,
          .output_tokens = sequences};
}

}  // namespace epsim
