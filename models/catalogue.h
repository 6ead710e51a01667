// The models that ship, and what follows from a shape alone.
#pragma once

#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "engine/catalogue.h"
#include "engine/units.h"
#include "models/costs/costs.pb.h"
#include "models/model.pb.h"

namespace epsim {

absl::Span<const CatalogueFile> ModelCatalogue();

// The model whose file is called `name` ("deepseek-v3"); the error lists the names there are.
absl::StatusOr<ModelSpec> FindModel(std::string_view name);

// Whether the shape is complete and its parts agree, for models that users describe themselves.  The error names the
// field and its value.
absl::Status ValidateModel(const ModelSpec& model);

// Weights of one routed expert, scales included: gate and up [moe_intermediate, hidden], down [hidden,
// moe_intermediate]; in NVFP4 with the float32 (alpha) of each.
Bytes ExpertBytes(const ModelSpec& model, NumberType type);

// What one token leaves in the cache, all layers together: kv_lora_rank + qk_rope_head_dim values a layer with MLA,
// 2 * kv_heads * head_dim with GQA.  Layers with linear attention leave nothing; local layers count, because their
// share stays bounded only once the context outgrows the window.
Bytes KvBytesPerToken(const ModelSpec& model, NumberType type);

// Layers that attend to the whole context, and the others (local windows or linear attention).
struct AttentionLayers {
  int full = 0, other = 0;
};
AttentionLayers CountAttentionLayers(const ModelSpec& model);

}  // namespace epsim
