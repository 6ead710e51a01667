#include "models/catalogue.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/status_macros.h"
#include "engine/text_proto.h"
#include "models/number_type.h"

namespace epsim {
namespace {

absl::Status Positive(const ModelSpec& model, const char* field, uint32_t value) {
  if (value > 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("model \"", model.name(), "\": ", field, " is missing or 0"));
}

absl::Status Disagree(const ModelSpec& model, const char* field, uint32_t value, const std::string& problem) {
  return absl::InvalidArgumentError(
      absl::StrCat("model \"", model.name(), "\": ", field, " is ", value, "; ", problem));
}

// Far above any model, and low enough that bytes and operations of a layer stay far within 64 bits.
uint32_t Largest(const std::string& field) {
  if (field == "layers" || field == "moe_layers" || field == "mtp_layers") return 1 << 10;
  for (const char* wide :
       {"dense_intermediate", "moe_intermediate", "shared_intermediate", "local_window", "vocabulary"}) {
    if (field == wide) return 1 << 20;
  }
  return 1 << 16;
}

// Every number of `message`, a part of `model`.
absl::Status ValidateSizes(const ModelSpec& model, const google::protobuf::Message& message) {
  const google::protobuf::Reflection& reflection = *message.GetReflection();
  std::vector<const google::protobuf::FieldDescriptor*> fields;
  reflection.ListFields(message, &fields);
  for (const google::protobuf::FieldDescriptor* field : fields) {
    if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_MESSAGE) {
      RETURN_IF_ERROR(ValidateSizes(model, reflection.GetMessage(message, field)));
    } else if (field->cpp_type() == google::protobuf::FieldDescriptor::CPPTYPE_UINT32) {
      const uint32_t value = reflection.GetUInt32(message, field), largest = Largest(field->name());
      if (value > largest) {
        return Disagree(model, field->name().c_str(), value, absl::StrCat("the largest is ", largest));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status ValidateAttention(const ModelSpec& model) {
  RETURN_IF_ERROR(Positive(model, "heads", model.heads()));
  switch (model.attention_case()) {
    case ModelSpec::kMla: {
      const MlaAttention& mla = model.mla();
      RETURN_IF_ERROR(Positive(model, "mla.kv_lora_rank", mla.kv_lora_rank()));
      RETURN_IF_ERROR(Positive(model, "mla.qk_nope_head_dim", mla.qk_nope_head_dim()));
      RETURN_IF_ERROR(Positive(model, "mla.qk_rope_head_dim", mla.qk_rope_head_dim()));
      RETURN_IF_ERROR(Positive(model, "mla.v_head_dim", mla.v_head_dim()));
      break;
    }
    case ModelSpec::kGqa: {
      const GqaAttention& gqa = model.gqa();
      RETURN_IF_ERROR(Positive(model, "gqa.kv_heads", gqa.kv_heads()));
      RETURN_IF_ERROR(Positive(model, "gqa.head_dim", gqa.head_dim()));
      if (model.heads() % gqa.kv_heads() != 0) {
        return Disagree(model, "gqa.kv_heads", gqa.kv_heads(),
                        absl::StrCat("heads is ", model.heads(), ", no multiple"));
      }
      break;
    }
    case ModelSpec::ATTENTION_NOT_SET:
      return absl::InvalidArgumentError(absl::StrCat("model \"", model.name(), "\": neither mla nor gqa is given"));
  }

  const bool some_other = model.local_window() > 0 || model.has_linear_attention();
  const uint32_t interval = model.full_attention_interval();
  if (some_other && (interval == 0 || interval > model.layers())) {
    return Disagree(model, "full_attention_interval", interval,
                    absl::StrCat("with local_window or linear_attention it must be in 1..", model.layers()));
  }
  if (!some_other && interval > 0) {
    return Disagree(model, "full_attention_interval", interval,
                    "without local_window or linear_attention every layer is full");
  }
  if (model.local_window() > 0 && model.has_linear_attention()) {
    return Disagree(model, "local_window", model.local_window(), "linear_attention is given as well");
  }
  if (model.local_chunks() && model.local_window() == 0) {
    return Disagree(model, "local_window", 0, "local_chunks needs it");
  }
  if (model.has_linear_attention()) {
    const LinearAttention& linear = model.linear_attention();
    RETURN_IF_ERROR(Positive(model, "linear_attention.key_heads", linear.key_heads()));
    RETURN_IF_ERROR(Positive(model, "linear_attention.value_heads", linear.value_heads()));
    RETURN_IF_ERROR(Positive(model, "linear_attention.key_head_dim", linear.key_head_dim()));
    RETURN_IF_ERROR(Positive(model, "linear_attention.value_head_dim", linear.value_head_dim()));
    RETURN_IF_ERROR(Positive(model, "linear_attention.conv_width", linear.conv_width()));
  }
  return absl::OkStatus();
}

absl::Status ValidateMlps(const ModelSpec& model) {
  RETURN_IF_ERROR(Positive(model, "moe_layers", model.moe_layers()));
  if (model.moe_layers() > model.layers()) {
    return Disagree(model, "moe_layers", model.moe_layers(), absl::StrCat("layers is only ", model.layers()));
  }
  if ((model.dense_intermediate() > 0) != (model.moe_layers() < model.layers())) {
    return Disagree(model, "dense_intermediate", model.dense_intermediate(),
                    absl::StrCat(model.layers() - model.moe_layers(), " of the layers are dense"));
  }
  RETURN_IF_ERROR(Positive(model, "experts", model.experts()));
  RETURN_IF_ERROR(Positive(model, "top_k", model.top_k()));
  RETURN_IF_ERROR(Positive(model, "moe_intermediate", model.moe_intermediate()));
  if (model.top_k() > model.experts()) {
    return Disagree(model, "top_k", model.top_k(), absl::StrCat("experts is only ", model.experts()));
  }
  if ((model.shared_experts() > 0) != (model.shared_intermediate() > 0)) {
    return Disagree(model, "shared_intermediate", model.shared_intermediate(),
                    absl::StrCat("shared_experts is ", model.shared_experts()));
  }
  RETURN_IF_ERROR(Positive(model, "expert_groups", model.expert_groups()));
  RETURN_IF_ERROR(Positive(model, "top_groups", model.top_groups()));
  if (model.experts() % model.expert_groups() != 0) {
    return Disagree(model, "expert_groups", model.expert_groups(),
                    absl::StrCat("experts is ", model.experts(), ", no multiple"));
  }
  if (model.top_groups() > model.expert_groups()) {
    return Disagree(model, "top_groups", model.top_groups(),
                    absl::StrCat("expert_groups is only ", model.expert_groups()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ModelSpec> FindModel(std::string_view name) {
  const CatalogueFile* file = FindInCatalogue(ModelCatalogue(), name);
  if (file == nullptr) {
    const auto append_name = [](std::string* out, const CatalogueFile& entry) { out->append(entry.name); };
    return absl::NotFoundError(absl::StrCat("no model is called \"", absl::string_view(name.data(), name.size()),
                                            "\"; there are ", absl::StrJoin(ModelCatalogue(), ", ", append_name)));
  }
  ModelSpec model;
  RETURN_IF_ERROR(ParseTextProto(file->text, file->path, &model));
  return model;
}

absl::Status ValidateModel(const ModelSpec& model) {
  if (model.name().empty()) return absl::InvalidArgumentError("model: name is missing");
  RETURN_IF_ERROR(ValidateSizes(model, model));
  RETURN_IF_ERROR(Positive(model, "layers", model.layers()));
  RETURN_IF_ERROR(Positive(model, "hidden", model.hidden()));
  RETURN_IF_ERROR(Positive(model, "vocabulary", model.vocabulary()));
  RETURN_IF_ERROR(ValidateMlps(model));
  return ValidateAttention(model);
}

Bytes ExpertBytes(const ModelSpec& model, NumberType type) {
  const int64_t hidden = model.hidden(), inter = model.moe_intermediate();
  // NVFP4 has a float32 for each matrix beside the scales of its blocks.
  const Bytes alphas(type == NVFP4 ? 3 * 4 : 0);
  return WeightBytes(inter, hidden, type) * 2 + WeightBytes(hidden, inter, type) + alphas;
}

Bytes KvBytesPerToken(const ModelSpec& model, NumberType type) {
  const int64_t values = model.has_mla() ? int64_t{model.mla().kv_lora_rank()} + model.mla().qk_rope_head_dim()
                                         : int64_t{2} * model.gqa().kv_heads() * model.gqa().head_dim();
  const AttentionLayers layers = CountAttentionLayers(model);
  return ActivationBytes(values, type) * (layers.full + (model.has_linear_attention() ? 0 : layers.other));
}

AttentionLayers CountAttentionLayers(const ModelSpec& model) {
  const int layers = static_cast<int>(model.layers());
  if (model.full_attention_interval() == 0) return {.full = layers, .other = 0};
  const int full = layers / static_cast<int>(model.full_attention_interval());
  return {.full = full, .other = layers - full};
}

}  // namespace epsim
