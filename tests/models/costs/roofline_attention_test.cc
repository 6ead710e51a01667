// The attention block, kernel by kernel, on the GPU and model of round_numbers.h (1 ps a byte; operations take no time
// except where said).
#include "models/costs/roofline_attention.h"

#include "gtest/gtest.h"
#include "tests/models/costs/round_numbers.h"

namespace epsim {
namespace {

constexpr char kMla[] =
    "mla { q_lora_rank: 64 kv_lora_rank: 32 qk_nope_head_dim: 16 qk_rope_head_dim: 8 v_head_dim: 16 }";
constexpr char kLinear[] =
    "gqa { kv_heads: 2 head_dim: 32 } full_attention_interval: 2 "
    "linear_attention { key_heads: 2 value_heads: 4 key_head_dim: 16 value_head_dim: 16 conv_width: 4 }";

int64_t Attention(const AttentionLoad& load, const std::string& attention = "gqa { kv_heads: 2 head_dim: 32 }") {
  return RoundCosts(RoundConfig(), RoundModel(attention))->Attention(load).time.count();
}

// Two sequences of 160 tokens of context in all.
//   norm 8 * 256 * 2 = 4,096          qkv [256, 256] 131,072 + 2 * (512 + 512) = 133,120
//   rope 2 * (768 + 128 + 256) = 2,304
//   attention 160 * 256 + 2 * 512 = 41,984         combine 2 * 6 * 128 = 1,536
//   output [256, 128] 65,536 + 2 * (256 + 512) = 67,072
// and six kernels.
TEST(RooflineAttentionTest, GroupedQueryDecode) { EXPECT_NEAR(Attention(Decode(2, 160)), 6'250'112, 1); }

// Ten tokens after twenty: nobody combines, and the KV cache is read once.
//   norm 20,480, qkv 131,072 + 10,240, rope 11,520, attention 30 * 256 + 10 * 512 = 12,800, output 65,536 + 7,680
// and five kernels.
TEST(RooflineAttentionTest, GroupedQueryPrefill) { EXPECT_NEAR(Attention(Prefill(1, 10, 30)), 5'259'328, 1); }

// 64 sequences of 1,024 in one prefill: 64 * 1,024 * 1,025 / 2 = 33,587,200 pairs of 512 operations at 2^-10 ps are
// 16,793,600 ps, against 65,536 * (256 + 512) = 50,331,648 bytes.  At 4,096 tokens each, pairs are 8,390,656 * 16 for
// the same tokens and outweigh the bytes: 67,125,248 ps.  All else is the same.
TEST(RooflineAttentionTest, LongPrefillIsBoundByOperations) {
  GpuSpec gpu = RoundGpu();
  gpu.set_bf16("1024 TFLOP/s");
  const auto costs = RoundCosts(RoundConfig(), RoundModel(), gpu);
  EXPECT_NEAR((costs->Attention(Prefill(16, 4096, 4096)).time - costs->Attention(Prefill(64, 1024, 1024)).time).count(),
              67'125'248 - 50'331'648, 1);
}

// Half the efficiency, twice the time of operations: decode of one token in a context of 2^20 takes 2^20 * 512
// operations, at 2^-8 ps 2,097,152 ps more.
TEST(RooflineAttentionTest, PhasesHaveTheirOwnEfficiency) {
  GpuSpec gpu = RoundGpu();
  gpu.set_memory_bandwidth("900000 TB/s");
  gpu.set_bf16("256 TFLOP/s");
  const auto time = [&](const char* field, const AttentionLoad& load) {
    CostConfig config = RoundConfig();
    EXPECT_TRUE(SetField(field, config.mutable_roofline()).ok());
    return RoundCosts(config, RoundModel(), gpu)->Attention(load).time.count();
  };
  const AttentionLoad decode = Decode(1, 1 << 20), prefill = Prefill(1, 1024, 1024);
  EXPECT_NEAR(
      time("attention.decode_compute_efficiency=0.5", decode) - time("attention.decode_compute_efficiency=1", decode),
      2'097'152, 1);
  EXPECT_EQ(time("attention.prefill_compute_efficiency=0.5", decode),
            time("attention.prefill_compute_efficiency=1", decode));
  EXPECT_NEAR(time("attention.prefill_compute_efficiency=0.5", prefill) -
                  time("attention.prefill_compute_efficiency=1", prefill),
              1024 * 1025 / 2 * 512 / 256.0, 1);
}

// Without tokens the projections start empty, and nobody launches attention: norm, qkv, rope, output.
TEST(RooflineAttentionTest, NoTokensCostTheFloors) { EXPECT_NEAR(Attention(AttentionLoad()), 4'000'000, 1); }

// With an output gate the first projection is [384, 256]: 128 * 256 * 2 weights and 2 * 128 * 2 outputs more.
TEST(RooflineAttentionTest, AnOutputGateWidensTheQueryProjection) {
  EXPECT_NEAR(
      Attention(Decode(2, 160), "gqa { kv_heads: 2 head_dim: 32 output_gate: true }") - Attention(Decode(2, 160)),
      65'536 + 512, 1);
}

// In half of the layers each of the two tokens sees 16 of its 80: attention there is 2 * 16 * 256 + 1,024 = 9,216.
TEST(RooflineAttentionTest, LocalLayersAreAveragedIn) {
  EXPECT_NEAR(Attention(Decode(2, 160), "gqa { kv_heads: 2 head_dim: 32 } local_window: 16 full_attention_interval: 2"),
              6'250'112 - 41'984 + (41'984 + 9'216) / 2, 1);
}

// Absorbed, h = 4, c = 32, dn = 16, dr = 8, dv = 16, entry = 80 B:
//   norm 4,096                        down [104, 256] 53,248 + 2 * (512 + 208) = 54,688
//   norms 2 * 4 * 96 = 768            q_b [96, 64] 12,288 + 2 * (128 + 192) = 12,928
//   rope 2 * (128 + 80 + 80) = 576    W_UK 4 x [32, 16] 4,096 + 2 * (128 + 256) = 4,864
//   attention 160 * 80 + 2 * 2 * 4 * 72 = 13,952   combine 2 * 6 * 128 = 1,536
//   W_UV 4 x [16, 32] 4,096 + 2 * (256 + 128) = 4,864
//   output [256, 64] 32,768 + 2 * (128 + 512) = 34,048
// nine kernels and the floor of latent attention.
TEST(RooflineAttentionTest, LatentDecodeIsAbsorbed) { EXPECT_NEAR(Attention(Decode(2, 160), kMla), 14'132'320, 1); }

// Expanded: the whole context of 30 goes through kv_b.
//   norm 20,480, down 53,248 + 7,200, norms 3,840, q_b 12,288 + 3,200, rope 2,880, output 32,768 + 6,400
//   kv_b [128, 32] 8,192 + 30 * (64 + 256) = 17,792
//   attention 30 * 2 * (4 * 32 + 8) + 10 * 2 * 4 * 40 = 11,360
// and eight kernels.
TEST(RooflineAttentionTest, LatentPrefillIsExpanded) { EXPECT_NEAR(Attention(Prefill(1, 10, 30), kMla), 8'171'456, 1); }

// Without q_lora_rank: no q_b (12,928 and a kernel), no query norm (2 * 4 * 64 = 512), and a first projection of
// [4 * 24 + 40 = 136, 256], which is 32 rows more: 16,384 + 2 * 2 * 32 = 16,512.
TEST(RooflineAttentionTest, QueriesMayBeProjectedDirectly) {
  EXPECT_NEAR(
      Attention(Decode(2, 160), "mla { kv_lora_rank: 32 qk_nope_head_dim: 16 qk_rope_head_dim: 8 v_head_dim: 16 }"),
      14'132'320 - 1'000'000 - 12'928 - 512 + 16'512, 1);
}

// An fp8 entry of 40 values has one scale: 44 B for 80 B, read 160 times and written twice.
TEST(RooflineAttentionTest, TheCacheHasItsOwnType) {
  const auto costs = RoundCosts(RoundConfig("kv_cache: FP8"), RoundModel(kMla));
  EXPECT_NEAR(costs->Attention(Decode(2, 160)).time.count(), 14'132'320 - 162 * 36, 1);
}

// nk * dk = 32, nv * dv = 64, 128 channels:
//   norm 4,096                        qkvz [192, 256] 98,304 + 2 * (512 + 384) = 100,096
//   beta [8, 256] 4,096 + 2 * (512 + 16) = 5,152
//   convolution 2 * 512 + 2 * 4 * 128 * 3 = 4,096
//   delta rule 2 * 8 * 4 * 16 * 16 + 2 * 2 * 192 = 17,152
//   gated norm 2 * 384 = 768          output [256, 64] 32,768 + 2 * (128 + 512) = 34,048
// and seven kernels, in half of the layers; the context does not matter.
TEST(RooflineAttentionTest, LinearAttentionKeepsAState) {
  EXPECT_NEAR(Attention(Decode(2, 160), kLinear), (6'250'112 + 7'165'408) / 2, 1);
  EXPECT_NEAR(2 * Attention(Decode(2, 320), kLinear) - Attention(Decode(2, 320)), 7'165'408, 1);
}

// Both phases at once: the common kernels see all 12 tokens, each phase has its own attention.
//   norm 24,576, qkv 131,072 + 12,288, rope 13,824, output 65,536 + 9,216
//   decode 41,984 and combine 1,536; prefill 12,800; seven kernels
TEST(RooflineAttentionTest, PhasesInOneStepAreSeparateKernels) {
  AttentionLoad load = Decode(2, 160);
  const AttentionLoad prefill = Prefill(1, 10, 30);
  load.tokens += prefill.tokens;
  load.sequences += prefill.sequences;
  load.attended_tokens += prefill.attended_tokens;
  load.context_tokens += prefill.context_tokens;
  EXPECT_NEAR(Attention(load), 7'312'832, 1);
}

TEST(SplitAttentionTest, IsExactForOnePhase) {
  const AttentionWork decode = SplitAttention(Decode(3, 700));
  EXPECT_EQ(decode.decode_context, 700);
  EXPECT_EQ(decode.prefill_context, 0);
  EXPECT_EQ(decode.prefill_attended, 0);
  // Sequences of 3 and 7 tokens, which are not alike.
  const AttentionWork prefill = SplitAttention({.tokens = 10,
                                                .sequences = 2,
                                                .decode_tokens = 0,
                                                .attended_tokens = 6 + 28,
                                                .context_tokens = 10,
                                                .output_tokens = 2});
  EXPECT_EQ(prefill.prefill_context, 10);
  EXPECT_EQ(prefill.prefill_attended, 34);
  EXPECT_EQ(prefill.decode_context, 0);
}

// Decode contexts 100 + 60; two prefills of 10 tokens ending at 30: attended 160 + 2 * 255, context 160 + 60.
TEST(SplitAttentionTest, FindsThePartsOfAMixedStepWhosePrefillsAreAlike) {
  const AttentionWork work = SplitAttention({.tokens = 22,
                                             .sequences = 4,
                                             .decode_tokens = 2,
                                             .attended_tokens = 670,
                                             .context_tokens = 220,
                                             .output_tokens = 4});
  EXPECT_DOUBLE_EQ(work.decode_context, 160);
  EXPECT_DOUBLE_EQ(work.prefill_context, 60);
  EXPECT_DOUBLE_EQ(work.prefill_attended, 510);
  EXPECT_EQ(work.prefill_sequences, 2);
}

// Prefills of 2 and 100 tokens from the start, beside one decode token that sees only itself: alike would mean more
// context than there is, so decode keeps its one.
TEST(SplitAttentionTest, LeavesDecodeAtLeastItself) {
  const AttentionWork work = SplitAttention({.tokens = 103,
                                             .sequences = 3,
                                             .decode_tokens = 1,
                                             .attended_tokens = 1 + 3 + 5050,
                                             .context_tokens = 103,
                                             .output_tokens = 3});
  EXPECT_EQ(work.decode_context, 1);
  EXPECT_EQ(work.prefill_context, 102);
  EXPECT_EQ(work.prefill_attended, 5053);
}

TEST(SeenLocallyTest, AWindowSlides) {
  // Contexts of 80 see 16 each.
  EXPECT_NEAR(SeenLocally(SplitAttention(Decode(2, 160)), 16, false).decode_context, 32, 1);
  // Contexts of 8 are seen whole.
  EXPECT_NEAR(SeenLocally(SplitAttention(Decode(2, 16)), 16, false).decode_context, 16, 1);
  // Tokens 21..30 see 16 each, and read what the first of them sees and themselves: 15 + 10.
  const AttentionWork prefill = SeenLocally(SplitAttention(Prefill(1, 10, 30)), 16, false);
  EXPECT_EQ(prefill.prefill_attended, 160);
  EXPECT_EQ(prefill.prefill_context, 25);
  // Twenty from the start: 1 + 2 + ... + 16 + 4 * 16.
  EXPECT_NEAR(SeenLocally(SplitAttention(Prefill(1, 20, 20)), 16, false).prefill_attended, 136 + 64, 1);
}

TEST(SeenLocallyTest, ChunksAreHalfFullInTheMean) {
  // Two whole chunks of 16: each 1 + ... + 16.
  const AttentionWork chunks = SeenLocally(SplitAttention(Prefill(1, 32, 32)), 16, true);
  EXPECT_EQ(chunks.prefill_attended, 2 * 136);
  EXPECT_EQ(chunks.prefill_context, 32);
  EXPECT_NEAR(SeenLocally(SplitAttention(Decode(2, 160)), 16, true).decode_context, 2 * 8.5, 1);
  EXPECT_NEAR(SeenLocally(SplitAttention(Decode(2, 30)), 16, true).decode_context, 30, 1);
}

}  // namespace
}  // namespace epsim
