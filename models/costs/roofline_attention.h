// The attention block of a layer by the roofline: projections, the attention itself, output projection, with the
// kernels that serving engines launch for each mechanism.
#pragma once

#include <memory>

#include "models/costs/costs.pb.h"
#include "models/costs/roofline_kernel.h"
#include "models/model.pb.h"
#include "models/number_type.h"
#include "traces/workload/step_batch.h"

namespace epsim {

// An AttentionLoad with its decode and prefill parts apart.  "Attended" counts query-key pairs of the whole model
// width, "context" the cache entries that are read.
struct AttentionWork {
  double tokens = 0, sequences = 0;
  double decode_tokens = 0, decode_context = 0;  // A decode token attends to its whole context.
  double prefill_tokens = 0, prefill_sequences = 0, prefill_attended = 0, prefill_context = 0;
};

// Exact for loads that are all decode or all prefill.  In a mixed one the sums are divided as if the prefill sequences
// were alike: n tokens each at the end of a context of c attend to n * c - n * (n - 1) / 2, so that
//   attended_tokens - context_tokens = prefill_context * (n - 1) - prefill_tokens * (n - 1) / 2
// (decode cancels) gives prefill_context, kept between prefill_tokens and what decode leaves of context_tokens.
// REQUIRES: a sequence that is not decode has two tokens or more.
AttentionWork SplitAttention(const AttentionLoad& load);

// What is left of `work` in a layer where a token at position p sees min(p + 1, window) tokens or, with `chunks`, those
// since the last multiple of `window`: (window + 1) / 2 in the mean once the context is longer.  Sequences of one kind
// are taken to be alike.
AttentionWork SeenLocally(const AttentionWork& work, double window, bool chunks);

class RooflineAttention {
 public:
  virtual ~RooflineAttention() = default;
  // All kernels of the block in one layer.  Attention kernels are launched for the phases that have tokens.
  virtual double Picoseconds(const AttentionWork& work) const = 0;
};

// Of a layer that attends to its context, by `model.attention`.  Activations of the projections have the type of
// `weights`, but bf16 with 4-bit types; scores and values are computed in bf16.
std::unique_ptr<RooflineAttention> NewContextAttention(const ModelSpec& model, const GpuRates& rates,
                                                       NumberType weights, NumberType kv_cache);

// Latent attention proper in decode, without what is around it in the block: `tokens` tokens with `context` cache
// entries in all.  REQUIRES: the model has latent attention.
double LatentDecodePicoseconds(const ModelSpec& model, const GpuRates& rates, NumberType kv_cache, double tokens,
                               double context);

// Of a layer with `model.linear_attention`.  REQUIRES: the model has it.
std::unique_ptr<RooflineAttention> NewLinearAttention(const ModelSpec& model, const GpuRates& rates,
                                                      NumberType weights);

// The type of activations that meet `weights` outside the routed experts.
inline NumberType ProjectionActivations(NumberType weights) { return IsEightBit(weights) ? weights : BF16; }

}  // namespace epsim
