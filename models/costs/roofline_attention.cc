#include "models/costs/roofline_attention.h"

#include <algorithm>

#include "engine/check.h"
#include "models/number_type.h"

namespace epsim {
namespace {

// Attention proper: floor + max(bytes * ps_per_byte, flops * ps_per_flop); nothing without tokens, as nobody launches
// it.  Unlike a GEMM it overlaps the two all of the way: it streams a cache through its SMs.
double Core(const GpuRates& rates, double floor_ps, double tokens, double bytes, double flops_ps) {
  if (tokens == 0) return 0;
  return floor_ps + std::max(bytes * rates.ps_per_byte, flops_ps);
}

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434).  With h heads, dn, dr, dv the head dimensions without
// and with position and of values, c = kv_lora_rank:
//   norm             8 * hidden B a token
//   down-projection  GEMM [q_lora_rank + c + dr, hidden]; without q_lora_rank [h * (dn + dr) + c + dr, hidden]
//   norms            4 * (q_lora_rank + c) B a token
//   q_b              GEMM [h * (dn + dr), q_lora_rank], with q_lora_rank only
//   rope and cache   4 * h * dr + 2 * (c + dr) + cache entry B a token
//   decode, absorbed:
//     W_UK           h x GEMM [c, dn]
//     attention      bytes = context * entry + tokens * 2 * h * (2 * c + dr), flops = context * h * 2 * (2 * c + dr)
//     combine        the parts of a split context: tokens * 6 * h * c B
//     W_UV           h x GEMM [dv, c]
//   prefill, expanded:
//     kv_b           GEMM [h * (dn + dv), c] over the context
//     attention      bytes = context * 2 * (h * (dn + dv) + dr) + tokens * 2 * h * (dn + dr + dv),
//                    flops = attended * h * 2 * (dn + dr + dv)
//   output           GEMM [hidden, h * dv]
class Mla final : public RooflineAttention {
 public:
  Mla(const ModelSpec& model, const GpuRates& rates, NumberType weights, NumberType kv_cache)
      : model_(model), rates_(rates) {
    const NumberType activations = ProjectionActivations(weights);
    const int64_t hidden = model.hidden(), h = model.heads(), q = model.mla().q_lora_rank();
    const int64_t c = model.mla().kv_lora_rank(), dn = model.mla().qk_nope_head_dim();
    const int64_t dr = model.mla().qk_rope_head_dim(), dv = model.mla().v_head_dim();
    const int64_t entry = ActivationBytes(c + dr, kv_cache).count();

    norm_ = Elementwise(rates, 8.0 * hidden);
    down_ = Gemm(rates, (q > 0 ? q : h * (dn + dr)) + c + dr, hidden, weights, activations);
    norms_ = Elementwise(rates, 4.0 * (q + c));
    if (q > 0) q_b_ = Gemm(rates, h * (dn + dr), q, weights, activations);
    rope_ = Elementwise(rates, 4.0 * h * dr + 2.0 * (c + dr) + entry);
    output_ = Gemm(rates, hidden, h * dv, weights, activations);

    // The absorbed matrices are stored as the other weights and meet bf16 activations.
    absorb_k_ = Gemm(rates, h, c, dn, weights, BF16);
    absorb_v_ = Gemm(rates, h, dv, c, weights, BF16);
    combine_ = Elementwise(rates, 6.0 * h * c);
    kv_cache_ = kv_cache;

    kv_b_ = Gemm(rates, h * (dn + dv), c, weights, activations);
    prefill_context_bytes_ = 2.0 * (h * (dn + dv) + dr);
    prefill_token_bytes_ = 2.0 * h * (dn + dr + dv);
    prefill_flops_ = 2.0 * h * (dn + dr + dv);
  }

  double Picoseconds(const AttentionWork& work) const override {
    double ps = norm_.Picoseconds(work.tokens) + down_.Picoseconds(work.tokens) + norms_.Picoseconds(work.tokens) +
                q_b_.Picoseconds(work.tokens) + rope_.Picoseconds(work.tokens) + output_.Picoseconds(work.tokens);
    if (work.decode_tokens > 0) {
      ps += absorb_k_.Picoseconds(work.decode_tokens) + combine_.Picoseconds(work.decode_tokens) +
            absorb_v_.Picoseconds(work.decode_tokens);
    }
    ps += LatentDecodePicoseconds(model_, rates_, kv_cache_, work.decode_tokens, work.decode_context);
    if (work.prefill_tokens > 0) ps += kv_b_.Picoseconds(work.prefill_context);
    ps += Core(rates_, rates_.kernel_ps, work.prefill_tokens,
               work.prefill_context * prefill_context_bytes_ + work.prefill_tokens * prefill_token_bytes_,
               work.prefill_attended * prefill_flops_ * rates_.prefill_attention_ps);
    return ps;
  }

 private:
  ModelSpec model_;
  GpuRates rates_;
  NumberType kv_cache_;
  Elementwise norm_, norms_, rope_, combine_;
  Gemm down_, q_b_, output_, absorb_k_, absorb_v_, kv_b_;
  double prefill_context_bytes_, prefill_token_bytes_, prefill_flops_;
};

// Grouped-query attention (arXiv 2305.13245).  With h heads, g cache heads of d values:
//   norm             8 * hidden B a token
//   qkv              GEMM [(h + 2 * g) * d, hidden]; with an output gate [(2 * h + 2 * g) * d, hidden]
//   rope and cache   4 * (h + g) * d + 2 * g * d + cache entry B a token
//   decode           bytes = context * entry + tokens * 4 * h * d, flops = context * h * 4 * d
//   combine          the parts of a split context, decode only: tokens * 6 * h * d B
//   prefill          bytes as decode, flops = attended * h * 4 * d
//   output           GEMM [hidden, h * d]
class Gqa final : public RooflineAttention {
 public:
  Gqa(const ModelSpec& model, const GpuRates& rates, NumberType weights, NumberType kv_cache) : rates_(rates) {
    const NumberType activations = ProjectionActivations(weights);
    const int64_t hidden = model.hidden(), h = model.heads();
    const int64_t g = model.gqa().kv_heads(), d = model.gqa().head_dim();
    const int64_t entry = ActivationBytes(2 * g * d, kv_cache).count();

    norm_ = Elementwise(rates, 8.0 * hidden);
    qkv_ = Gemm(rates, ((model.gqa().output_gate() ? 2 * h : h) + 2 * g) * d, hidden, weights, activations);
    rope_ = Elementwise(rates, 4.0 * (h + g) * d + 2.0 * g * d + entry);
    combine_ = Elementwise(rates, 6.0 * h * d);
    output_ = Gemm(rates, hidden, h * d, weights, activations);
    context_bytes_ = entry;
    token_bytes_ = 4.0 * h * d;
    flops_ = 4.0 * h * d;
  }

  double Picoseconds(const AttentionWork& work) const override {
    double ps = norm_.Picoseconds(work.tokens) + qkv_.Picoseconds(work.tokens) + rope_.Picoseconds(work.tokens) +
                output_.Picoseconds(work.tokens);
    if (work.decode_tokens > 0) ps += combine_.Picoseconds(work.decode_tokens);
    ps += Core(rates_, rates_.kernel_ps, work.decode_tokens,
               work.decode_context * context_bytes_ + work.decode_tokens * token_bytes_,
               work.decode_context * flops_ * rates_.decode_attention_ps);
    ps += Core(rates_, rates_.kernel_ps, work.prefill_tokens,
               work.prefill_context * context_bytes_ + work.prefill_tokens * token_bytes_,
               work.prefill_attended * flops_ * rates_.prefill_attention_ps);
    return ps;
  }

 private:
  GpuRates rates_;
  Elementwise norm_, rope_, combine_;
  Gemm qkv_, output_;
  double context_bytes_, token_bytes_, flops_;
};

// The gated delta rule in its chunkwise form (arXiv 2412.06464, section 3.3), chunks of C = 64 tokens.  With nk key
// heads of dk values, nv value heads of dv values, w the width of the convolution:
//   norm             8 * hidden B a token
//   qkvz             GEMM [2 * nk * dk + 2 * nv * dv, hidden]
//   beta and decay   GEMM [2 * nv, hidden], bf16
//   convolution      4 * (2 * nk * dk + nv * dv) B a token, and its last w - 1 inputs, in bf16, read and written once a
//                    sequence
//   delta rule       bytes = sequences * 2 * nv * dk * dv * 4 (the float32 state, read and written)
//                            + tokens * 2 * (2 * nk * dk + 2 * nv * dv),
//                    flops = tokens * nv * (6 * dk * dv + 2 * C * (3 * dk + 2 * dv)): state in, out and update; in the
//                    chunk QK', KK', the transform of K and V, and the product with V
//   gated norm       6 * nv * dv B a token
//   output           GEMM [hidden, nv * dv]
class GatedDeltaRule final : public RooflineAttention {
 public:
  GatedDeltaRule(const ModelSpec& model, const GpuRates& rates, NumberType weights) : rates_(rates) {
    const NumberType activations = ProjectionActivations(weights);
    const LinearAttention& linear = model.linear_attention();
    const int64_t hidden = model.hidden(), nv = linear.value_heads();
    const int64_t dk = linear.key_head_dim(), dv = linear.value_head_dim();
    const int64_t keys = linear.key_heads() * dk, values = nv * dv, channels = 2 * keys + values;
    constexpr double kChunk = 64;

    norm_ = Elementwise(rates, 8.0 * hidden);
    qkvz_ = Gemm(rates, 2 * keys + 2 * values, hidden, weights, activations);
    beta_ = Gemm(rates, 2 * nv, hidden, BF16, BF16);
    convolution_ = Elementwise(rates, 4.0 * channels);
    convolution_sequence_ps_ = 4.0 * channels * (linear.conv_width() - 1) * rates.ps_per_byte;
    state_bytes_ = 8.0 * nv * dk * dv;
    token_bytes_ = 2.0 * (2 * keys + 2 * values);
    flops_ = nv * (6.0 * dk * dv + 2 * kChunk * (3 * dk + 2 * dv));
    gated_norm_ = Elementwise(rates, 6.0 * values);
    output_ = Gemm(rates, hidden, values, weights, activations);
  }

  double Picoseconds(const AttentionWork& work) const override {
    return norm_.Picoseconds(work.tokens) + qkvz_.Picoseconds(work.tokens) + beta_.Picoseconds(work.tokens) +
           convolution_.Picoseconds(work.tokens) + work.sequences * convolution_sequence_ps_ +
           Core(rates_, rates_.kernel_ps, work.tokens, work.sequences * state_bytes_ + work.tokens * token_bytes_,
                work.tokens * flops_ * rates_.prefill_attention_ps) +
           gated_norm_.Picoseconds(work.tokens) + output_.Picoseconds(work.tokens);
  }

 private:
  GpuRates rates_;
  Elementwise norm_, convolution_, gated_norm_;
  Gemm qkvz_, beta_, output_;
  double convolution_sequence_ps_, state_bytes_, token_bytes_, flops_;
};

}  // namespace

double LatentDecodePicoseconds(const ModelSpec& model, const GpuRates& rates, NumberType kv_cache, double tokens,
                               double context) {
  const double h = model.heads(), c = model.mla().kv_lora_rank(), dr = model.mla().qk_rope_head_dim();
  const int64_t values = int64_t{model.mla().kv_lora_rank()} + model.mla().qk_rope_head_dim();
  const auto entry = static_cast<double>(ActivationBytes(values, kv_cache).count());
  return Core(rates, rates.mla_decode_ps, tokens, context * entry + tokens * 2 * h * (2 * c + dr),
              context * 2 * h * (2 * c + dr) * rates.decode_attention_ps);
}

AttentionWork SplitAttention(const AttentionLoad& load) {
  const int64_t prefill_tokens = load.tokens - load.decode_tokens;
  const int64_t prefill_sequences = load.sequences - load.decode_tokens;
  EPSIM_CHECK(load.decode_tokens >= 0 && prefill_sequences >= 0 && prefill_tokens >= 2 * prefill_sequences);
  EPSIM_CHECK(prefill_tokens == 0 || prefill_sequences > 0);

  AttentionWork work;
  work.tokens = static_cast<double>(load.tokens);
  work.sequences = static_cast<double>(load.sequences);
  work.decode_tokens = static_cast<double>(load.decode_tokens);
  work.prefill_tokens = static_cast<double>(prefill_tokens);
  work.prefill_sequences = static_cast<double>(prefill_sequences);
  const auto attended = static_cast<double>(load.attended_tokens), context = static_cast<double>(load.context_tokens);
  if (prefill_tokens == 0) {
    work.decode_context = context;
    return work;
  }
  work.prefill_context = context;
  if (load.decode_tokens > 0) {
    const double each = work.prefill_tokens / work.prefill_sequences;
    const double alike = (attended - context) / (each - 1) + work.prefill_tokens / 2;
    work.prefill_context =
        std::clamp(alike, work.prefill_tokens, std::max(work.prefill_tokens, context - work.decode_tokens));
  }
  work.decode_context = context - work.prefill_context;
  work.prefill_attended = attended - work.decode_context;
  return work;
}

AttentionWork SeenLocally(const AttentionWork& work, double window, bool chunks) {
  const double mean = chunks ? (window + 1) / 2 : window;  // Seen by a token far into its context.
  // Seen in all by the first `count` tokens of a sequence.
  const auto seen = [&](double count) {
    return count <= window ? count * (count + 1) / 2 : window * (window + 1) / 2 + (count - window) * mean;
  };
  AttentionWork local = work;
  if (work.decode_tokens > 0) {
    const double context = work.decode_context / work.decode_tokens;
    local.decode_context = work.decode_tokens * (context <= window ? context : mean);
  }
  if (work.prefill_tokens > 0) {
    const double context = work.prefill_context / work.prefill_sequences;
    const double tokens = work.prefill_tokens / work.prefill_sequences;
    local.prefill_attended =
        std::min(work.prefill_attended, work.prefill_sequences * (seen(context) - seen(context - tokens)));
    local.prefill_context = work.prefill_sequences * std::min(context, tokens + mean - 1);
  }
  return local;
}

std::unique_ptr<RooflineAttention> NewContextAttention(const ModelSpec& model, const GpuRates& rates,
                                                       NumberType weights, NumberType kv_cache) {
  switch (model.attention_case()) {
    case ModelSpec::kMla:
      return std::make_unique<Mla>(model, rates, weights, kv_cache);
    case ModelSpec::kGqa:
      return std::make_unique<Gqa>(model, rates, weights, kv_cache);
    case ModelSpec::ATTENTION_NOT_SET:
      break;
  }
  EPSIM_CHECK(!"a model that ValidateModel accepts");
  __builtin_unreachable();
}

std::unique_ptr<RooflineAttention> NewLinearAttention(const ModelSpec& model, const GpuRates& rates,
                                                      NumberType weights) {
  EPSIM_CHECK(model.has_linear_attention());
  return std::make_unique<GatedDeltaRule>(model, rates, weights);
}

}  // namespace epsim
